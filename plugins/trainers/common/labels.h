/* SPDX-License-Identifier: Apache-2.0 */
/* From the labels in the data, integers or words, to classes 0, 1, 2 …

   Labels get a code each as they are met. Once all files are read, the distinct labels
   are sorted (as numbers if all are integers, else as text) and a code's rank is its
   class: the same on every leaf that reads the same files. */
#ifndef TIERED_TRAINERS_LABELS_H
#define TIERED_TRAINERS_LABELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TIERED_MAX_CLASSES 10000u

struct tiered_label {
    char *text; /* NULL: an integer */
    int64_t value;
};

/** Zeroed is empty. */
struct tiered_labels {
    struct tiered_label *items; /* by code */
    uint32_t n, n_texts;        /* n_texts: those that are not integers */
    uint32_t *slots;            /* hash table of code + 1; 0: free */
    uint32_t n_slots;
};

/** The code of a label, a new one if it was not met before. UINT32_MAX: out of memory,
    or one class more than TIERED_MAX_CLASSES (then labels->n says so). */
uint32_t tiered_labels_integer(struct tiered_labels *labels, int64_t value);
/** The same for text; what reads as an integer is one. */
uint32_t tiered_labels_text(struct tiered_labels *labels, const char *text, size_t n);
/** class_of[code], malloc'd. NULL: out of memory. */
uint32_t *tiered_labels_rank(const struct tiered_labels *labels);
void tiered_labels_finish(struct tiered_labels *labels);

#endif
