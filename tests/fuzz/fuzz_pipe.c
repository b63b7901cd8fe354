/* SPDX-License-Identifier: Apache-2.0 */
/* What the zstd filter makes of a peer's block. Input: a byte that picks the layout and
   the number of filters; if its bit 4 is set, a byte n and n bytes of header, a
   dictionary; then the block as it was encoded. */
#include "fuzz_decode.h"

static struct tiered_layout *make_layout(unsigned which)
{
    static const struct {
        enum tiered_dtype dtype;
        uint64_t n;
    } kinds[] = {{TIERED_F32, 8}, {TIERED_F32, 4096}, {TIERED_I64, 3}, {TIERED_U8, 0}};
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    FUZZ_CHECK(b, "out of memory");
    FUZZ_CHECK(tiered_layout_add(b, "w", kinds[which].dtype, TIERED_PARAMETER, 1,
                                 &kinds[which].n, &err) == 0,
               "%s", err.text);
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    FUZZ_CHECK(layout, "%s", err.text);
    return layout;
}

static void run(const Tiered__V1__Head *head, struct fuzz_input in)
{
    struct tiered_error err = {0};
    struct tiered_encoded *encoded = NULL;
    FUZZ_CHECK(tiered_encoded_begin(head, NULL, &encoded, &err) == 0, "%s", err.text);
    const struct tiered_layout *layout = tiered_encoded_layout(encoded);
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < layout->n_blocks; i++) {
        result = tiered_encoded_append(encoded, i, tiered_crc32c(0, in.data, in.size),
                                       in.data, in.size, &err);
    }
    if (result < 0) { /* too large */
        fuzz_check_error(&err);
    } else {
        FUZZ_CHECK(tiered_encoded_seal(encoded, false, &err) == 0, "%s", err.text);
        fuzz_decode(encoded);
    }
    tiered_encoded_unref(encoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct tiered_error err = {0};
    char name[] = "zstd";
    Tiered__V1__Head head = TIERED__V1__HEAD__INIT;
    Tiered__V1__FilterHead filter = TIERED__V1__FILTER_HEAD__INIT;
    Tiered__V1__FilterHead *pipe[FUZZ_MOST_FILTERS] = {&filter, &filter, &filter};
    unsigned choice = fuzz_byte(&in);
    struct tiered_layout *layout = make_layout(choice & 3);
    if (choice & 16) {
        size_t n = fuzz_byte(&in);
        struct fuzz_input header = fuzz_take(&in, n);
        filter.header = (ProtobufCBinaryData){
            .len = header.size, .data = (uint8_t *)(uintptr_t)header.data};
    }
    filter.name = name;
    head.pipe = pipe;
    head.n_pipe = choice >> 2 & 3;
    FUZZ_CHECK(tiered_wire_tensors(layout, &head.tensors, &head.n_tensors, &err) == 0,
               "%s", err.text);
    run(&head, in);
    tiered_wire_free_tensors(head.tensors, head.n_tensors);
    tiered_layout_unref(layout);
    return 0;
}
