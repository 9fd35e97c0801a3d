/* The Python side of the kernel: reads an optimizer's tensors into rows and runs the update over them.

   Nothing is cached between steps but memory: every pointer, shape, stride, dtype and device is read anew from the
   tensors at each step, through DLPack's C exchange interface (`torch.Tensor.__dlpack_c_exchange_api__`), which needs
   no header of torch's. What the kernel cannot take safely is not touched but handed back, for the plain rules. */

#include "module.h"

#include <stdlib.h>
#include <string.h>

#ifndef SOURCE_HASH
#define SOURCE_HASH "unknown"
#endif

/* Fewer elements than this are updated by one thread, and fewer than that without giving up the GIL. */
enum { PARALLEL_FROM = 32768, RELEASE_GIL_FROM = 65536 };

static const level *levels[3];
static int n_levels;
const level *current;
PyObject *str_params, *str_grad, *str_step, *str_item, *str_is_neg, *str_lr, *str_weight_decay, *str_maximize,
    *str_momentum, *str_dampening, *str_nesterov, *str_betas, *str_eps, *str_amsgrad, *str_decoupled;
PyObject *str_buffers[N_RULES][3];

PyDoc_STRVAR(read_doc, "read(rule, param_groups, state, scales) -> None | list[(group, param, grad)]\n\n"
"Read every parameter with a gradient, and write nothing. The parameters in the answer are not read: they, or their\n"
"gradient, state or options, are of a kind that only the plain rules take. `scales` is None or one factor a group for\n"
"its gradients.");

static PyObject *read_all(Table *table, PyObject *const *args, Py_ssize_t n_args)
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

/* Give up the GIL for a long run. */
static PyThreadState *let_others_run(Table *table)
{
    return table->n_elements < RELEASE_GIL_FROM ? NULL : PyEval_SaveThread();
}

static void come_back(PyThreadState *gil)
{
    if (gil) PyEval_RestoreThread(gil);
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

static PyObject *run_all(Table *table, PyObject *const *args, Py_ssize_t n_args)
{
    const long threads = n_args == 2 ? PyLong_AsLong(args[0]) : -1;
    const int measure = n_args == 2 && args[1] == Py_True;
    if (threads < 1) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "run(threads, measure): threads must be at least 1");
        return NULL;
    }
    const int64_t blocks = number_blocks(table->rows, table->n_rows);
    if (measure && room_for_sums(table, blocks * 3)) return NULL;
    squares *sums = measure ? (squares *)table->sums : NULL;
    for (Py_ssize_t i = 0; i < table->n_rows; i++)
        prepare(table->rows + i, table->groups + table->rows[i].group);
    PyThreadState *gil = let_others_run(table);
    update_rows(current, table->rule, table->rows, table->n_rows, table->groups, useful_threads(table, threads), sums);
    come_back(gil);
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

static PyObject *measure_all(Table *table, PyObject *const *args, Py_ssize_t n_args)
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
        come_back(gil);
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
    if (take(table)) return NULL;
    const int failed = clear(table);
    let_go(table, 1);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

/* The methods, each for one thread at a time: what they call in Python may let another one in. */

static PyObject *table_read(Table *table, PyObject *const *args, Py_ssize_t n_args)
{
    if (take(table)) return NULL;
    PyObject *answer = read_all(table, args, n_args);
    let_go(table, answer == NULL);
    return answer;
}

static PyObject *table_run(Table *table, PyObject *const *args, Py_ssize_t n_args)
{
    if (take(table)) return NULL;
    PyObject *answer = run_all(table, args, n_args);
    let_go(table, 1);
    return answer;
}

static PyObject *table_grad_squares(Table *table, PyObject *const *args, Py_ssize_t n_args)
{
    if (take(table)) return NULL;
    PyObject *answer = measure_all(table, args, n_args);
    let_go(table, 1);
    return answer;
}

/* ---- the type and the module ---- */

static PyObject *table_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (!is_bound()) {
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

int intern_names(void)
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
