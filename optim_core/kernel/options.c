/* The options of a param group, as far as the kernel takes them. */

#include "module.h"

#include <string.h>

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
   for a bias correction of zero or the root of a negative one: those, NaN, and a correction so small that the division
   by it could underflow, are for the plain rules. */
static int are_ordinary(enum rule rule, const options *o)
{
    const double bounded[] = {o->lr, o->weight_decay, o->momentum, o->dampening, o->eps};
    for (size_t i = 0; i < sizeof bounded / sizeof *bounded; i++)
        if (!(bounded[i] >= -1e20 && bounded[i] <= 1e20)) return 0;
    return rule == SGD || (o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 <= 1 - 1e-12);
}

/* 1: read; 0: the group has an option that only the plain rules take; -1: an error is set. */
int read_options(enum rule rule, PyObject *group, options *o)
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
