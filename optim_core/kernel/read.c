/* From an optimizer's param groups and state to rows. Nothing is written; what the kernel can't take safely is left. */

#include "module.h"

#include <string.h>

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
    if (!describe_any(object, &t)) return 0;
    int64_t reach = numel(&t) > 0;
    for (int d = 0; d < t.ndim && reach; d++) reach += (t.shape[d] - 1) * t.strides[d];
    const int64_t bytes = (reach * t.dtype.bits * t.dtype.lanes + 7) / 8;
    return add_interval(table, t.data, bytes, written, 1) ? -1 : 1;
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

int read_groups(Table *table, PyObject *groups, PyObject *state, PyObject *scales, int all_plain, PyObject **rest)
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

int read_gradients(Table *table, PyObject *group, int index, PyObject **rest)
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
