/* What the files of the module share: how a tensor is described, the table of rows, and who reads what into it. */

#ifndef OPTIM_CORE_MODULE_H
#define OPTIM_CORE_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "table.h"

/* DLPack 1.x, as far as it is used here: https://dmlc.github.io/dlpack/latest/c_api.html */

typedef struct {
    void *data;
    struct { int32_t type, id; } device;
    int32_t ndim;
    struct { uint8_t code, bits; uint16_t lanes; } dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} tensor;

enum { CPU_DEVICE = 1, FLOAT_CODE = 2, BFLOAT_CODE = 4 };

typedef struct {
    char *start, *end;
    int written, left;  /* left: of a parameter that the plain rules update, after all rows */
} interval;

typedef struct {
    PyObject_HEAD
    enum rule rule;
    row *rows;
    options *groups;
    interval *intervals, *checked, *sorted;
    Py_ssize_t n_rows, n_groups, n_intervals, n_checked;
    Py_ssize_t room_rows, room_groups, room_intervals, room_checked, room_sorted, room_sums;
    double *sums;
    int64_t n_elements;
    int busy;              /* inside a call, which may let other threads run */
    unsigned long holder;  /* the thread that read and has not run yet; 0 without */
    PyObject *owners;   /* list: keeps every tensor that a row points into until the run is over */
    PyObject *written;  /* list: the parameters of the rows */
} Table;

extern const level *current;  /* the instruction set in use */

/* Names of attributes and options, interned by `intern_names`. */
extern PyObject *str_params, *str_grad, *str_step, *str_item, *str_is_neg, *str_lr, *str_weight_decay, *str_maximize,
    *str_momentum, *str_dampening, *str_nesterov, *str_betas, *str_eps, *str_amsgrad, *str_decoupled;
extern PyObject *str_buffers[N_RULES][3];
int intern_names(void);

/* tensors.c */
PyObject *bind(PyObject *module, PyObject *const *args, Py_ssize_t n_args);
int is_bound(void);
int is_tensor(PyObject *object);
int describe_any(PyObject *object, tensor *out);
int describe(PyObject *object, tensor *out);
int64_t numel(const tensor *t);
int is_dense(const tensor *t);
int same_layout(const tensor *a, const tensor *b);
int dtype_of(const tensor *t, enum dtype *out);
int is_negated(PyObject *object, int64_t n);

/* memory.c */
int grow(void **items, Py_ssize_t count, Py_ssize_t *room, size_t size);
int take(Table *table);
void let_go(Table *table, int for_good);
int clear(Table *table);
int own(Table *table, PyObject *object);
int add_interval(Table *table, const void *start, int64_t bytes, int written, int left);
int overlaps(Table *table);

/* options.c */
int read_options(enum rule rule, PyObject *group, options *o);

/* read.c */
int read_groups(Table *table, PyObject *groups, PyObject *state, PyObject *scales, int all_plain, PyObject **rest);
int read_gradients(Table *table, PyObject *group, int index, PyObject **rest);

#endif
