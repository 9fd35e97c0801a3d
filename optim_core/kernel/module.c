/* The Python side of the kernel: reads an optimizer's tensors into rows and runs the update over them.

   Nothing is cached between steps but memory: every pointer, shape, stride, dtype and device is read anew from the
   tensors at each step, through DLPack's C exchange interface (`torch.Tensor.__dlpack_c_exchange_api__`), which needs
   no header of torch's. What the kernel cannot take safely is not touched but handed back, for the plain rules. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "table.h"

#include <stddef.h>

#ifndef SOURCE_HASH
#define SOURCE_HASH "unknown"
#endif

/* DLPack 1.x, as far as it is used here: https://dmlc.github.io/dlpack/latest/c_api.html */

typedef struct {
    void *data;
    struct { int32_t type, id; } device;
    int32_t ndim;
    struct { uint8_t code, bits; uint16_t lanes; } dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} tensor;

typedef struct exchange_api {
    struct { uint32_t major, minor; struct exchange_api *previous; } header;
    void *managed_tensor_allocator, *managed_tensor_from_py_object, *managed_tensor_to_py_object;
    int (*tensor_from_py_object)(void *py_object, tensor *out);
    void *current_work_stream;
} exchange_api;

enum { CPU_DEVICE = 1, FLOAT_CODE = 2, BFLOAT_CODE = 4 };

/* Fewer elements than this are updated by one thread, and fewer than that without giving up the GIL. */
enum { PARALLEL_FROM = 32768, RELEASE_GIL_FROM = 65536 };

static const level *levels[3], *current;
static int n_levels;
static const exchange_api *torch_api;
static PyTypeObject *tensor_type, *parameter_type;
static PyObject *str_params, *str_grad, *str_step, *str_item, *str_is_neg, *str_lr, *str_weight_decay, *str_maximize,
    *str_momentum, *str_dampening, *str_nesterov, *str_betas, *str_eps, *str_amsgrad, *str_decoupled;
static PyObject *str_buffers[N_RULES][3];

/* ---- tensors ---- */

static int is_tensor(PyObject *object)
{
    return Py_TYPE(object) == tensor_type || Py_TYPE(object) == parameter_type;
}

/* Whether `object` is a plain tensor with memory on the CPU; then `out` describes it. No error is left set. */
static int describe(PyObject *object, tensor *out)
{
    if (!is_tensor(object)) return 0;
    if (torch_api->tensor_from_py_object(object, out) != 0) {
        PyErr_Clear();
        return 0;
    }
    out->data = (char *)out->data + out->byte_offset;
    return out->device.type == CPU_DEVICE;
}

static int64_t numel(const tensor *t)
{
    int64_t n = 1;
    for (int d = 0; d < t->ndim; d++) n *= t->shape[d];
    return n;
}

/* Whether the elements fill their memory without gaps or overlaps, in any order of the dimensions. */
static int is_dense(const tensor *t)
{
    int left = 0;
    for (int d = 0; d < t->ndim; d++) {
        if (t->shape[d] == 0) return 1;
        left += t->shape[d] > 1;
    }
    for (int64_t expected = 1; left > 0; left--) {
        int next = -1;
        for (int d = 0; d < t->ndim; d++)
            if (t->shape[d] > 1 && t->strides[d] == expected) next = d;
        if (next < 0) return 0;
        expected *= t->shape[next];
    }
    return 1;
}

static int same_layout(const tensor *a, const tensor *b)
{
    if (a->ndim != b->ndim || a->dtype.code != b->dtype.code || a->dtype.bits != b->dtype.bits ||
        a->dtype.lanes != b->dtype.lanes)
        return 0;
    for (int d = 0; d < a->ndim; d++)
        if (a->shape[d] != b->shape[d] || (a->shape[d] > 1 && a->strides[d] != b->strides[d])) return 0;
    return 1;
}

static int dtype_of(const tensor *t, enum dtype *out)
{
    if (t->dtype.lanes != 1) return 0;
    if (t->dtype.code == FLOAT_CODE && t->dtype.bits == 32) *out = FLOAT32;
    else if (t->dtype.code == FLOAT_CODE && t->dtype.bits == 64) *out = FLOAT64;
    else if (t->dtype.code == BFLOAT_CODE && t->dtype.bits == 16) *out = BFLOAT16;
    else if (t->dtype.code == FLOAT_CODE && t->dtype.bits == 16) *out = FLOAT16;
    else return 0;
    return current->sum_of_squares[*out] != NULL;
}

/* A view of one element may be one that torch negates when it is read (the imaginary part of a conjugate). Views of
   more elements with that mark are not dense. -1 with an error set. */
static int is_negated(PyObject *object, int64_t n)
{
    if (n != 1) return 0;
    PyObject *answer = PyObject_CallMethodNoArgs(object, str_is_neg);
    if (!answer) return -1;
    const int negated = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return negated;
}

/* ---- the table ---- */

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
    int busy;  /* a run without the GIL is under way */
    PyObject *owners;   /* list: keeps every tensor that a row points into until the run is over */
    PyObject *written;  /* list: the parameters of the rows */
} Table;

/* Room for one more of `count` items. -1 with an error set. */
static int grow(void **items, Py_ssize_t count, Py_ssize_t *room, size_t size)
{
    if (count < *room) return 0;
    const Py_ssize_t more = count < 16 ? 32 : count * 2;
    void *moved = PyMem_RawRealloc(*items, more * size);
    if (!moved) {
        PyErr_NoMemory();
        return -1;
    }
    *items = moved;
    *room = more;
    return 0;
}

static int clear(Table *table)
{
    if (table->busy) {
        PyErr_SetString(PyExc_RuntimeError, "this optimizer is at work in another thread; step it in one at a time");
        return -1;
    }
    table->n_rows = table->n_groups = table->n_intervals = 0;
    table->n_elements = 0;
    if (PyList_SetSlice(table->owners, 0, PY_SSIZE_T_MAX, NULL)) return -1;
    Py_XSETREF(table->written, PyList_New(0));
    return table->written ? 0 : -1;
}

static int add_interval(Table *table, const void *start, int64_t bytes, int written, int left)
{
    if (bytes == 0) return 0;
    if (grow((void **)&table->intervals, table->n_intervals, &table->room_intervals, sizeof(interval))) return -1;
    interval *added = memset(table->intervals + table->n_intervals++, 0, sizeof(interval));
    *added = (interval){(char *)start, (char *)start + bytes, written, left};
    return 0;
}

static int by_start(const void *a, const void *b)
{
    const interval *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

/* 1 if memory that is written overlaps other memory of the table, so that the order of the updates matters; -1 with an
   error set. What is left keeps its order. The answer "no" is kept for a table of the same pointers. */
static int overlaps(Table *table)
{
    if (table->n_intervals == 0) return 0;
    const size_t size = table->n_intervals * sizeof(interval);
    if (table->n_intervals == table->n_checked && memcmp(table->intervals, table->checked, size) == 0) return 0;
    while (table->room_sorted < table->n_intervals)
        if (grow((void **)&table->sorted, table->room_sorted, &table->room_sorted, sizeof(interval))) return -1;
    while (table->room_checked < table->n_intervals)
        if (grow((void **)&table->checked, table->room_checked, &table->room_checked, sizeof(interval))) return -1;
    memcpy(table->sorted, table->intervals, size);
    qsort(table->sorted, table->n_intervals, sizeof(interval), by_start);
    char *ends[2][2] = {{NULL}};
    for (Py_ssize_t i = 0; i < table->n_intervals; i++) {
        const interval *next = table->sorted + i;
        for (int written = 0; written < 2; written++)
            for (int left = 0; left < 2; left++)
                if (next->start < ends[written][left] && (written || next->written) && !(left && next->left)) {
                    table->n_checked = 0;
                    return 1;
                }
        char **end = &ends[next->written][next->left];
        if (next->end > *end) *end = next->end;
    }
    memcpy(table->checked, table->intervals, size);
    table->n_checked = table->n_intervals;
    return 0;
}

/* ---- options ---- */

/* A float option. 1: read; 0: not a number that C reads; -1: an error is set. `take_tensor` reads a 1-element tensor. */
static int read_number(PyObject *group, PyObject *key, int take_tensor, double *out)
{
    PyObject *value = PyDict_GetItemWithError(group, key);
    if (!value) return PyErr_Occurred() ? -1 : 0;
    if (PyFloat_Check(value) || PyLong_Check(value)) {
        *out = PyFloat_AsDouble(value);
        return *out == -1 && PyErr_Occurred() ? -1 : 1;
    }
    if (!take_tensor || !is_tensor(value)) return 0;
    PyObject *item = PyObject_CallMethodNoArgs(value, str_item);
    if (!item) return -1;
    *out = PyFloat_AsDouble(item);
    Py_DECREF(item);
    return *out == -1 && PyErr_Occurred() ? -1 : 1;
}

static int read_flag(PyObject *group, PyObject *key, int *out)
{
    PyObject *value = PyDict_GetItemWithError(group, key);
    if (!value) return PyErr_Occurred() ? -1 : 0;
    *out = PyObject_IsTrue(value);
    return *out < 0 ? -1 : 1;
}

static int read_betas(PyObject *group, options *o)
{
    PyObject *betas = PyDict_GetItemWithError(group, str_betas);
    if (!betas) return PyErr_Occurred() ? -1 : 0;
    if (!PyTuple_Check(betas) || PyTuple_GET_SIZE(betas) != 2) return 0;
    PyObject *first = PyTuple_GET_ITEM(betas, 0), *second = PyTuple_GET_ITEM(betas, 1);
    if (!PyFloat_Check(first) || !PyFloat_Check(second)) return 0;
    o->beta1 = PyFloat_AS_DOUBLE(first);
    o->beta2 = PyFloat_AS_DOUBLE(second);
    return 1;
}

/* Whether the kernel does with these what torch does. It raises an error for a scalar beyond float32's range, and Python
   for a bias correction of zero or the root of a negative one: those, and NaN, are for the plain rules. */
static int are_ordinary(enum rule rule, const options *o)
{
    const double bounded[] = {o->lr, o->weight_decay, o->momentum, o->dampening, o->eps};
    for (size_t i = 0; i < sizeof bounded / sizeof *bounded; i++)
        if (!(bounded[i] >= -1e20 && bounded[i] <= 1e20)) return 0;
    return rule == SGD || (o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1);
}

/* 1: read; 0: the group has an option that only the plain rules take; -1: an error is set. */
static int read_options(enum rule rule, PyObject *group, options *o)
{
    int done;
    memset(o, 0, sizeof *o);
#define NEED(call) if ((done = (call)) != 1) return done
    NEED(read_number(group, str_lr, rule == SGD, &o->lr));
    NEED(read_number(group, str_weight_decay, rule == SGD, &o->weight_decay));
    NEED(read_flag(group, str_maximize, &o->maximize));
    if (rule == SGD) {
        NEED(read_number(group, str_momentum, 0, &o->momentum));
        NEED(read_number(group, str_dampening, 0, &o->dampening));
        NEED(read_flag(group, str_nesterov, &o->nesterov));
        return are_ordinary(rule, o);
    }
    NEED(read_betas(group, o));
    NEED(read_number(group, str_eps, 0, &o->eps));
    NEED(read_flag(group, str_amsgrad, &o->amsgrad));
    NEED(read_flag(group, str_decoupled, &o->decoupled));
#undef NEED
    return are_ordinary(rule, o);
}

/* ---- rows ---- */

static int own(Table *table, PyObject *object) { return PyList_Append(table->owners, object); }

static int has_update(const Table *table, const row *r)
{
    const int narrow = r->dtype == BFLOAT16 || r->dtype == FLOAT16;
    return current->update[table->rule][r->dtype] && !(narrow && decay_of(table->groups + r->group) == L2_DECAY);
}

/* Whether the row can be filled: 1, 0, or -1 with an error set. */
static int read_buffers(Table *table, PyObject *entry, const tensor *param, row *r)
{
    const options *o = table->groups + r->group;
    const int needed = table->rule == SGD ? o->momentum != 0 : 2 + o->amsgrad;
    memset(r->buffers, 0, sizeof r->buffers);
    r->step = NULL;
    if (needed == 0) return 1;
    if (!entry || !PyDict_Check(entry)) return 0;
    tensor t;
    for (int i = 0; i < needed; i++) {
        PyObject *buffer = PyDict_GetItemWithError(entry, str_buffers[table->rule][i]);
        if (!buffer) return PyErr_Occurred() ? -1 : 0;
        if (!describe(buffer, &t) || !same_layout(&t, param) || (r->n && !t.data)) return 0;
        const int negated = is_negated(buffer, r->n);
        if (negated) return negated < 0 ? -1 : 0;
        if (own(table, buffer) || add_interval(table, t.data, r->n * ITEM_SIZE[r->dtype], 1, 0)) return -1;
        r->buffers[i] = t.data;
    }
    if (table->rule == SGD) return 1;
    PyObject *step = PyDict_GetItemWithError(entry, str_step);
    if (!step) return PyErr_Occurred() ? -1 : 0;
    if (!describe(step, &t) || numel(&t) != 1 || t.dtype.code != FLOAT_CODE || t.dtype.lanes != 1 ||
        (t.dtype.bits != 32 && t.dtype.bits != 64) || !t.data)
        return 0;
    const int negated = is_negated(step, 1);
    if (negated) return negated < 0 ? -1 : 0;
    /* Before the first update the bias correction divides by zero: an error, which the plain rule raises. */
    if (!((t.dtype.bits == 64 ? *(const double *)t.data : *(const float *)t.data) >= 0)) return 0;
    if (own(table, step) || add_interval(table, t.data, t.dtype.bits / 8, 1, 0)) return -1;
    r->step = t.data;
    r->step_is_float64 = t.dtype.bits == 64;
    return 1;
}

/* Add a row for the parameter: 1 added, 0 it is for the plain rules, -1 with an error set. */
static int read_row(Table *table, PyObject *param, PyObject *grad, PyObject *state, int group)
{
    if (grow((void **)&table->rows, table->n_rows, &table->room_rows, sizeof(row))) return -1;
    row *r = memset(table->rows + table->n_rows, 0, sizeof(row));
    tensor p, g;
    if (!describe(param, &p)) return 0;
    r->n = numel(&p);
    r->group = group;
    if (!dtype_of(&p, &r->dtype) || !has_update(table, r) || !is_dense(&p)) return 0;
    if (!describe(grad, &g) || !same_layout(&g, &p) || (r->n && (!g.data || !p.data))) return 0;
    int negated = is_negated(grad, r->n);
    if (negated == 0) negated = is_negated(param, r->n);
    if (negated) return negated < 0 ? -1 : 0;
    r->param = p.data;
    r->grad = g.data;
    PyObject *entry = PyDict_GetItemWithError(state, param);
    if (!entry && PyErr_Occurred()) return -1;
    const int taken = read_buffers(table, entry, &p, r);
    if (taken != 1) return taken;
    if (own(table, param) || own(table, grad) || PyList_Append(table->written, param)) return -1;
    const int64_t bytes = r->n * ITEM_SIZE[r->dtype];
    if (add_interval(table, p.data, bytes, 1, 0) || add_interval(table, g.data, bytes, 0, 0)) return -1;
    table->n_elements += r->n;
    table->n_rows++;
    return 1;
}

/* Note the memory of a tensor of any kind that the plain rules use. 1 where it is on the CPU, 0 where there is none
   there, -1 with an error set. */
static int note_left(Table *table, PyObject *object, int written)
{
    tensor t;
    if (!PyObject_TypeCheck(object, tensor_type)) return 0;
    if (torch_api->tensor_from_py_object(object, &t) != 0) {
        PyErr_Clear();
        return 0;
    }
    if (t.device.type != CPU_DEVICE) return 0;
    int64_t reach = numel(&t) > 0;
    for (int d = 0; d < t.ndim && reach; d++) reach += (t.shape[d] - 1) * t.strides[d];
    const int64_t bytes = (reach * t.dtype.bits * t.dtype.lanes + 7) / 8;
    return add_interval(table, (char *)t.data + t.byte_offset, bytes, written, 1) ? -1 : 1;
}

/* Note what the plain rules will read and write for a parameter. -1 with an error set. */
static int note_all_left(Table *table, PyObject *param, PyObject *grad, PyObject *state)
{
    const int on_cpu = note_left(table, param, 1);
    if (on_cpu != 1) return on_cpu;
    if (note_left(table, grad, 0) < 0) return -1;
    PyObject *entry = PyDict_GetItemWithError(state, param), *value;
    if (!entry) return PyErr_Occurred() ? -1 : 0;
    for (Py_ssize_t i = 0; PyDict_Check(entry) && PyDict_Next(entry, &i, NULL, &value);)
        if (note_left(table, value, 1) < 0) return -1;
    return 0;
}

static int leave(PyObject **rest, PyObject *group, PyObject *param, PyObject *grad)
{
    if (!*rest && !(*rest = PyList_New(0))) return -1;
    PyObject *item = PyTuple_Pack(3, group, param, grad);
    const int failed = !item || PyList_Append(*rest, item);
    Py_XDECREF(item);
    return failed ? -1 : 0;
}

/* A row for the parameter, or a line of `rest`. -1 with an error set. */
static int read_pair(Table *table, PyObject *group, int index, PyObject *param, PyObject *grad, PyObject *state,
                     int plain, PyObject **rest)
{
    const Py_ssize_t n_intervals = table->n_intervals;
    const int taken = plain ? 0 : read_row(table, param, grad, state, index);
    if (taken) return taken < 0 ? -1 : 0;
    table->n_intervals = n_intervals;
    return note_all_left(table, param, grad, state) || leave(rest, group, param, grad) ? -1 : 0;
}

/* Every parameter of the group with a gradient. */
static int read_group(Table *table, PyObject *group, PyObject *state, double scale, int all_plain, PyObject **rest)
{
    if (grow((void **)&table->groups, table->n_groups, &table->room_groups, sizeof(options))) return -1;
    const int index = (int)table->n_groups++;
    const int readable = read_options(table->rule, group, table->groups + index);
    table->groups[index].scale = scale;
    PyObject *params = readable < 0 ? NULL : PyDict_GetItemWithError(group, str_params);
    if (!params || !PyList_Check(params)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "a param group needs a list 'params'");
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(params); i++) {
        PyObject *param = Py_NewRef(PyList_GET_ITEM(params, i)), *grad = PyObject_GetAttr(param, str_grad);
        const int failed = !grad || (grad != Py_None && read_pair(table, group, index, param, grad, state,
                                                                  all_plain || !readable, rest));
        Py_XDECREF(grad);
        Py_DECREF(param);
        if (failed) return -1;
    }
    return 0;
}

static int read_groups(Table *table, PyObject *groups, PyObject *state, PyObject *scales, int all_plain, PyObject **rest)
{
    if (clear(table)) return -1;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(groups); i++) {
        PyObject *group = PyList_GET_ITEM(groups, i);
        if (!PyDict_Check(group)) {
            PyErr_SetString(PyExc_TypeError, "a param group must be a dict");
            return -1;
        }
        const double scale = scales == Py_None ? 1 : PyFloat_AsDouble(PyList_GET_ITEM(scales, i));
        if (scale == -1 && PyErr_Occurred()) return -1;
        if (read_group(table, group, state, scale, all_plain, rest)) return -1;
    }
    return 0;
}

PyDoc_STRVAR(read_doc, "read(rule, param_groups, state, scales) -> None | list[(group, param, grad)]\n\n"
"Read every parameter with a gradient, and write nothing. The parameters in the answer are not read: they, or their\n"
"gradient, state or options, are of a kind that only the plain rules take. `scales` is None or one factor a group for\n"
"its gradients.");

static PyObject *table_read(Table *table, PyObject *const *args, Py_ssize_t n_args)
{
    if (n_args != 4 || !PyLong_Check(args[0]) || !PyList_Check(args[1]) || !PyDict_Check(args[2]) ||
        (args[3] != Py_None && (!PyList_Check(args[3]) || PyList_GET_SIZE(args[3]) != PyList_GET_SIZE(args[1])))) {
        PyErr_SetString(PyExc_TypeError, "read(rule, param_groups, state, scales)");
        return NULL;
    }
    table->rule = PyLong_AsLong(args[0]) == SGD ? SGD : ADAM;
    PyObject *rest = NULL;
    int failed = read_groups(table, args[1], args[2], args[3], 0, &rest);
    const int overlap = failed ? -1 : table->n_rows ? overlaps(table) : 0;
    if (overlap == 1) {
        Py_CLEAR(rest);
        failed = read_groups(table, args[1], args[2], args[3], 1, &rest);
    }
    if (failed || overlap < 0) {
        Py_XDECREF(rest);
        clear(table);
        return NULL;
    }
    if (rest) return rest;
    Py_RETURN_NONE;
}

static int room_for_sums(Table *table, int64_t n)
{
    while (table->room_sums < n)
        if (grow((void **)&table->sums, table->room_sums, &table->room_sums, sizeof(double))) return -1;
    return 0;
}

static int useful_threads(const Table *table, long threads) { return table->n_elements < PARALLEL_FROM ? 1 : (int)threads; }

/* Give up the GIL for a long run; `come_back` takes it again. */
static PyThreadState *let_others_run(Table *table)
{
    if (table->n_elements < RELEASE_GIL_FROM) return NULL;
    table->busy = 1;
    return PyEval_SaveThread();
}

static void come_back(Table *table, PyThreadState *gil)
{
    if (gil) PyEval_RestoreThread(gil);
    table->busy = 0;
}

static PyObject *group_sums(const Table *table)
{
    PyObject *list = PyList_New(table->n_groups);
    if (!list) return NULL;
    squares *totals = PyMem_RawCalloc(table->n_groups + 1, sizeof(squares));
    if (!totals) {
        Py_DECREF(list);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < table->n_rows; i++) {
        const row *r = table->rows + i;
        squares *total = totals + r->group;
        const squares *block = (squares *)table->sums + r->first_block;
        for (int64_t left = r->n; left > 0; left -= BLOCK, block++)
            total->grad += block->grad, total->update += block->update, total->weight += block->weight;
    }
    for (Py_ssize_t i = 0; i < table->n_groups; i++) {
        PyObject *item = Py_BuildValue("ddd", totals[i].grad, totals[i].update, totals[i].weight);
        if (!item) Py_CLEAR(list);
        if (!list) break;
        PyList_SET_ITEM(list, i, item);
    }
    PyMem_RawFree(totals);
    return list;
}

PyDoc_STRVAR(run_doc, "run(threads, measure) -> (params, None | list[(grad², update², weight²)])\n\n"
"Update what was read, once; the parameters written, and with `measure` the sums of squares of each group: gradients\n"
"as they are stored, the changes of the parameters, the parameters before.");

static PyObject *table_run(Table *table, PyObject *const *args, Py_ssize_t n_args)
{
    const long threads = n_args == 2 ? PyLong_AsLong(args[0]) : -1;
    const int measure = n_args == 2 && args[1] == Py_True;
    if (threads < 1) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "run(threads, measure): threads must be at least 1");
        return NULL;
    }
    if (table->busy) return clear(table), NULL;
    const int64_t blocks = number_blocks(table->rows, table->n_rows);
    if (measure && room_for_sums(table, blocks * 3)) return NULL;
    squares *sums = measure ? (squares *)table->sums : NULL;
    for (Py_ssize_t i = 0; i < table->n_rows; i++)
        prepare(table->rows + i, table->groups + table->rows[i].group);
    PyThreadState *gil = let_others_run(table);
    update_rows(current, table->rule, table->rows, table->n_rows, table->groups, useful_threads(table, threads), sums);
    come_back(table, gil);
    PyObject *measured = measure ? group_sums(table) : Py_NewRef(Py_None);
    PyObject *written = Py_NewRef(table->written);
    if (!measured || clear(table)) {
        Py_XDECREF(measured);
        Py_DECREF(written);
        return NULL;
    }
    PyObject *answer = PyTuple_Pack(2, written, measured);
    Py_DECREF(written);
    Py_DECREF(measured);
    return answer;
}

/* A row of the gradient alone: 1, 0, or -1 with an error set. */
static int read_gradient(Table *table, PyObject *grad, int group)
{
    if (grow((void **)&table->rows, table->n_rows, &table->room_rows, sizeof(row))) return -1;
    row *r = memset(table->rows + table->n_rows, 0, sizeof(row));
    tensor g;
    if (!describe(grad, &g) || !dtype_of(&g, &r->dtype) || !is_dense(&g)) return 0;
    r->n = numel(&g);
    r->group = group;
    if (r->n && !g.data) return 0;
    r->grad = g.data;
    if (own(table, grad)) return -1;
    table->n_elements += r->n;
    table->n_rows++;
    return 1;
}

static int read_gradients(Table *table, PyObject *group, int index, PyObject **rest)
{
    PyObject *params = PyDict_Check(group) ? PyDict_GetItemWithError(group, str_params) : NULL;
    if (!params || !PyList_Check(params)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "a param group needs a list 'params'");
        return -1;
    }
    for (Py_ssize_t j = 0; j < PyList_GET_SIZE(params); j++) {
        PyObject *param = Py_NewRef(PyList_GET_ITEM(params, j)), *grad = PyObject_GetAttr(param, str_grad);
        const int taken = !grad ? -1 : grad == Py_None ? 1 : read_gradient(table, grad, index);
        const int failed = taken < 0 || (taken == 0 && leave(rest, group, param, grad));
        Py_XDECREF(grad);
        Py_DECREF(param);
        if (failed) return -1;
    }
    return 0;
}

static PyObject *squares_by_group(const Table *table, Py_ssize_t n_groups)
{
    double *totals = PyMem_RawCalloc(n_groups + 1, sizeof(double));
    PyObject *list = totals ? PyList_New(n_groups) : PyErr_NoMemory();
    for (Py_ssize_t i = 0; list && i < table->n_rows; i++) {
        const row *r = table->rows + i;
        const double *block = table->sums + r->first_block;
        for (int64_t left = r->n; left > 0; left -= BLOCK) totals[r->group] += *block++;
    }
    for (Py_ssize_t i = 0; list && i < n_groups; i++) {
        PyObject *total = PyFloat_FromDouble(totals[i]);
        if (total) PyList_SET_ITEM(list, i, total);
        else Py_CLEAR(list);
    }
    PyMem_RawFree(totals);
    return list;
}

PyDoc_STRVAR(norm_doc, "grad_squares(param_groups, threads) -> (list[sum], None | list[(group, param, grad)])\n\n"
"The sum of the squares of the gradients' elements in each group, in double and independent of the number of threads,\n"
"and the gradients that are not in it because the kernel does not take them.");

static PyObject *table_grad_squares(Table *table, PyObject *const *args, Py_ssize_t n_args)
{
    const long threads = n_args == 2 && PyList_Check(args[0]) ? PyLong_AsLong(args[1]) : -1;
    if (threads < 1) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "grad_squares(param_groups, threads)");
        return NULL;
    }
    PyObject *rest = NULL, *sums = NULL;
    const Py_ssize_t n_groups = PyList_GET_SIZE(args[0]);
    int failed = clear(table);
    for (Py_ssize_t i = 0; !failed && i < n_groups; i++)
        failed = read_gradients(table, PyList_GET_ITEM(args[0], i), (int)i, &rest);
    if (!failed && room_for_sums(table, number_blocks(table->rows, table->n_rows)) == 0) {
        PyThreadState *gil = let_others_run(table);
        measure_rows(current, table->rows, table->n_rows, useful_threads(table, threads), table->sums);
        come_back(table, gil);
        sums = squares_by_group(table, n_groups);
    }
    if (sums && clear(table) == 0) return Py_BuildValue("NN", sums, rest ? rest : Py_NewRef(Py_None));
    Py_XDECREF(sums);
    Py_XDECREF(rest);
    clear(table);
    return NULL;
}

PyDoc_STRVAR(forget_doc, "forget()\n\nLet go of what was read.");

static PyObject *table_forget(Table *table, PyObject *ignored)
{
    (void)ignored;
    if (clear(table)) return NULL;
    Py_RETURN_NONE;
}

/* ---- the type and the module ---- */

static PyObject *table_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (!torch_api) {
        PyErr_SetString(PyExc_RuntimeError, "bind() must be called first");
        return NULL;
    }
    Table *table = (Table *)type->tp_alloc(type, 0);
    if (!table) return NULL;
    table->owners = PyList_New(0);
    table->written = PyList_New(0);
    if (table->owners && table->written) return (PyObject *)table;
    Py_DECREF(table);
    return NULL;
}

static int table_traverse(Table *table, visitproc visit, void *arg)
{
    Py_VISIT(table->owners);
    Py_VISIT(table->written);
    return 0;
}

static int table_clear(Table *table)
{
    Py_CLEAR(table->owners);
    Py_CLEAR(table->written);
    return 0;
}

static void table_dealloc(Table *table)
{
    PyObject_GC_UnTrack(table);
    table_clear(table);
    void *memory[] = {table->rows, table->groups, table->intervals, table->checked, table->sorted, table->sums};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) PyMem_RawFree(memory[i]);
    Py_TYPE(table)->tp_free((PyObject *)table);
}

#define FASTCALL(function) (PyCFunction)(void (*)(void))function, METH_FASTCALL
static PyMethodDef table_methods[] = {
    {"read", FASTCALL(table_read), read_doc},
    {"run", FASTCALL(table_run), run_doc},
    {"grad_squares", FASTCALL(table_grad_squares), norm_doc},
    {"forget", (PyCFunction)table_forget, METH_NOARGS, forget_doc},
    {NULL},
};

static PyTypeObject table_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "optim_core._kernel.Table",
    .tp_doc = "Rows of pointers into an optimizer's tensors, for one step at a time, in one thread at a time.",
    .tp_basicsize = sizeof(Table),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = table_new,
    .tp_traverse = (traverseproc)table_traverse,
    .tp_clear = (inquiry)table_clear,
    .tp_dealloc = (destructor)table_dealloc,
    .tp_methods = table_methods,
};

PyDoc_STRVAR(bind_doc, "bind(tensor_type, parameter_type)\n\n"
"Take torch's types and its exchange interface. Raises ImportError where torch has none that fits.");

static PyObject *bind(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    if (n_args != 2 || !PyType_Check(args[0]) || !PyType_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "bind(tensor_type, parameter_type)");
        return NULL;
    }
    PyObject *capsule = PyObject_GetAttrString(args[0], "__dlpack_c_exchange_api__");
    const exchange_api *api = capsule ? PyCapsule_GetPointer(capsule, "dlpack_exchange_api") : NULL;
    Py_XDECREF(capsule);
    if (!api || api->header.major != 1 || !api->tensor_from_py_object) {
        PyErr_SetString(PyExc_ImportError, "this torch has no DLPack 1.x C exchange interface; torch 2.13 has");
        return NULL;
    }
    torch_api = api;
    tensor_type = (PyTypeObject *)Py_NewRef(args[0]);
    parameter_type = (PyTypeObject *)Py_NewRef(args[1]);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(use_doc, "use(level)\n\nUpdate with this one of `levels` from now on, in the whole process.");

static PyObject *use(PyObject *module, PyObject *name)
{
    const char *wanted = PyUnicode_AsUTF8(name);
    if (!wanted) return NULL;
    for (int i = 0; i < n_levels; i++)
        if (strcmp(levels[i]->name, wanted) == 0) {
            current = levels[i];
            Py_RETURN_NONE;
        }
    return PyErr_Format(PyExc_ValueError, "this processor has no level %R", name);
}

static PyMethodDef module_methods[] = {
    {"bind", FASTCALL(bind), bind_doc},
    {"use", use, METH_O, use_doc},
    {NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "optim_core._kernel", "The native kernel; see optim_core.native.", -1, module_methods,
};

static int intern_names(void)
{
    const struct { PyObject **where; const char *name; } names[] = {
        {&str_params, "params"}, {&str_grad, "grad"}, {&str_step, "step"}, {&str_item, "item"},
        {&str_is_neg, "is_neg"}, {&str_lr, "lr"}, {&str_weight_decay, "weight_decay"}, {&str_maximize, "maximize"},
        {&str_momentum, "momentum"}, {&str_dampening, "dampening"}, {&str_nesterov, "nesterov"},
        {&str_betas, "betas"}, {&str_eps, "eps"}, {&str_amsgrad, "amsgrad"},
        {&str_decoupled, "decoupled_weight_decay"}, {&str_buffers[SGD][0], "momentum_buffer"},
        {&str_buffers[ADAM][0], "exp_avg"}, {&str_buffers[ADAM][1], "exp_avg_sq"},
        {&str_buffers[ADAM][2], "max_exp_avg_sq"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!(*names[i].where = PyUnicode_InternFromString(names[i].name))) return -1;
    return 0;
}

static void find_levels(void)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        levels[n_levels++] = &level_avx512;
    if (avx2) levels[n_levels++] = &level_avx2;
#endif
    levels[n_levels++] = &level_portable;
    current = levels[0];
}

PyMODINIT_FUNC PyInit__kernel(void)
{
    PyObject *module = NULL, *names = NULL;
    if (intern_names() || PyType_Ready(&table_type) || !(module = PyModule_Create(&definition))) return NULL;
    if (n_levels == 0) find_levels();
    names = PyTuple_New(n_levels);
    for (int i = 0; names && i < n_levels; i++) PyTuple_SET_ITEM(names, i, PyUnicode_FromString(levels[i]->name));
    if (!names || PyModule_AddObjectRef(module, "levels", names) ||
        PyModule_AddObjectRef(module, "Table", (PyObject *)&table_type) ||
        PyModule_AddStringConstant(module, "source_hash", SOURCE_HASH) || PyModule_AddIntConstant(module, "SGD", SGD) ||
        PyModule_AddIntConstant(module, "ADAM", ADAM))
        Py_CLEAR(module);
    Py_XDECREF(names);
    return module;
}
