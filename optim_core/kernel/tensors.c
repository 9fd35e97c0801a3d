/* Tensors as they lie in memory, by DLPack's C exchange interface: torch's answer to "where, of what, how laid out". */

#include "module.h"

typedef struct exchange_api {
    struct { uint32_t major, minor; struct exchange_api *previous; } header;
    void *managed_tensor_allocator, *managed_tensor_from_py_object, *managed_tensor_to_py_object;
    int (*tensor_from_py_object)(void *py_object, tensor *out);
    void *current_work_stream;
} exchange_api;

static const exchange_api *torch_api;
static PyTypeObject *tensor_type, *parameter_type;

int is_bound(void) { return torch_api != NULL; }

PyObject *bind(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
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

int is_tensor(PyObject *object)
{
    return Py_TYPE(object) == tensor_type || Py_TYPE(object) == parameter_type;
}

/* Whether `object` is a tensor, of a subclass too, with memory on the CPU; then `out` describes it. No error is left
   set. */
int describe_any(PyObject *object, tensor *out)
{
    if (!PyObject_TypeCheck(object, tensor_type)) return 0;
    if (torch_api->tensor_from_py_object(object, out) != 0) {
        PyErr_Clear();
        return 0;
    }
    out->data = (char *)out->data + out->byte_offset;
    return out->device.type == CPU_DEVICE;
}

/* The same for a plain tensor or parameter alone: a subclass may mean something else than what stands in memory. */
int describe(PyObject *object, tensor *out) { return is_tensor(object) && describe_any(object, out); }

int64_t numel(const tensor *t)
{
    int64_t n = 1;
    for (int d = 0; d < t->ndim; d++) n *= t->shape[d];
    return n;
}

/* Whether the elements fill their memory without gaps or overlaps, in any order of the dimensions. */
int is_dense(const tensor *t)
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

int same_layout(const tensor *a, const tensor *b)
{
    if (a->ndim != b->ndim || a->dtype.code != b->dtype.code || a->dtype.bits != b->dtype.bits ||
        a->dtype.lanes != b->dtype.lanes)
        return 0;
    for (int d = 0; d < a->ndim; d++)
        if (a->shape[d] != b->shape[d] || (a->shape[d] > 1 && a->strides[d] != b->strides[d])) return 0;
    return 1;
}

int dtype_of(const tensor *t, enum dtype *out)
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
int is_negated(PyObject *object, int64_t n)
{
    if (n != 1) return 0;
    PyObject *answer = PyObject_CallMethodNoArgs(object, str_is_neg);
    if (!answer) return -1;
    const int negated = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return negated;
}
