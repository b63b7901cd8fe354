/* SPDX-License-Identifier: Apache-2.0 */
/* YAML and JSON documents, and --set assignments to them.
   Input: [ASSIGNMENT NUL] DOCUMENT. */
#include "core/value/value.h"
#include "fuzz.h"

/* JSON is YAML: what was written is read again as the same. */
static void check_json(const struct tiered_document *document)
{
    struct tiered_error err = {0};
    struct tiered_bytes first = {0}, second = {0};
    struct tiered_diagnostics diag = {0};
    if (tiered_value_json(tiered_document_root(document), &first, &err) < 0) {
        fuzz_check_error(&err);
        tiered_bytes_finish(&first);
        return;
    }
    struct tiered_document *again =
        tiered_document_parse("again", first.data, first.size, &diag);
    /* What aliases blew up may be over the bounds of a text. */
    FUZZ_CHECK(again || first.size > (1u << 16), "own JSON is refused (%s): %.300s",
               diag.n ? diag.items[0].text : "no reason", (const char *)first.data);
    if (again) {
        FUZZ_CHECK(tiered_value_json(tiered_document_root(again), &second, &err) == 0 &&
                       first.size == second.size &&
                       memcmp(first.data, second.data, first.size) == 0,
                   "JSON changes: %.200s | %.200s", (const char *)first.data,
                   second.data ? (const char *)second.data : "");
    }
    tiered_document_destroy(again);
    tiered_diag_finish(&diag);
    tiered_bytes_finish(&first);
    tiered_bytes_finish(&second);
}

static void check_lookups(const struct tiered_value *root)
{
    for (size_t i = 0; root->kind == TIERED_MAPPING && i < root->n; i++) {
        const struct tiered_value *key = root->items[2 * i];
        FUZZ_CHECK(tiered_value_get(root, key->text) == root->items[2 * i + 1] &&
                       tiered_value_key(root, key->text) == key,
                   "a key is not found");
    }
}

static void print(const struct tiered_diagnostics *diag, const char *text, size_t size)
{
    char *out = NULL;
    size_t n = 0;
    FILE *file = open_memstream(&out, &n);
    FUZZ_CHECK(file, "out of memory");
    tiered_diag_print(diag, text, size, file);
    fclose(file);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data, *assignment = NULL;
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    struct tiered_diagnostics diag = {0};
    struct tiered_error err = {0};
    if (nul) {
        assignment = text;
        text = (const char *)nul + 1;
        size -= (size_t)(text - assignment);
    }
    struct tiered_document *document =
        tiered_document_parse("fuzz.yaml", text, size, &diag);
    FUZZ_CHECK((document != NULL) == (diag.n_errors == 0), "%zu errors, document %p",
               diag.n_errors, (void *)document);
    print(&diag, text, size);
    if (document && assignment && tiered_document_set(document, assignment, &err) < 0) {
        fuzz_check_error(&err);
    }
    if (document) {
        check_lookups(tiered_document_root(document));
        check_json(document);
    }
    tiered_document_destroy(document);
    tiered_diag_finish(&diag);
    return 0;
}
