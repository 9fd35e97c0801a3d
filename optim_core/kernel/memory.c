/* The memory of a table: what its rows point into, kept alive and checked for overlaps. */

#include "module.h"

#include <stdlib.h>
#include <string.h>

/* Room for one more of `count` items. -1 with an error set. */
int grow(void **items, Py_ssize_t count, Py_ssize_t *room, size_t size)
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

/* Have the table for this thread, from reading until it is run. -1 with an error set where another thread has it. */
int take(Table *table)
{
    const unsigned long me = PyThread_get_thread_ident();
    if (table->busy || (table->holder && table->holder != me)) {
        PyErr_SetString(PyExc_RuntimeError, "this optimizer is at work in another thread; step it in one at a time");
        return -1;
    }
    table->holder = me;
    table->busy = 1;
    return 0;
}

/* Leave the call; `for_good`: and what was read. */
void let_go(Table *table, int for_good)
{
    table->busy = 0;
    if (for_good) table->holder = 0;
}

int clear(Table *table)
{
    table->n_rows = table->n_groups = table->n_intervals = 0;
    table->n_elements = 0;
    if (PyList_SetSlice(table->owners, 0, PY_SSIZE_T_MAX, NULL)) return -1;
    Py_XSETREF(table->written, PyList_New(0));
    return table->written ? 0 : -1;
}

int add_interval(Table *table, const void *start, int64_t bytes, int written, int left)
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
int overlaps(Table *table)
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

/* Keep the object until the table is cleared. */
int own(Table *table, PyObject *object) { return PyList_Append(table->owners, object); }
