/* SPDX-License-Identifier: Apache-2.0 */
/* IDX, the format of MNIST: 00 00, the type (08: u8), the rank, the lengths as
   big-endian u32, then the values. Images and labels are two files. */
#include <inttypes.h>
#include <stdlib.h>

#include "source.h"
#include "stream.h"

#define MAX_RANK 4
#define CHUNK    65536u

struct header {
    uint32_t n;      /* the first length */
    uint64_t inputs; /* the product of the others */
    uint32_t bytes;  /* of the header */
};

static uint32_t read_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int read_exactly(struct tiered_stream *stream, void *out, size_t n,
                        const char *what, struct tiered_error *err)
{
    size_t got;
    if (tiered_stream_read(stream, out, n, &got, err) < 0) {
        return -1;
    }
    return got == n
               ? 0
               : tiered_fail_in(err, TIERED_ECORRUPT, stream->path, "ends in %s", what);
}

static int check_size(const struct tiered_stream *stream, const struct header *header,
                      struct tiered_error *err)
{
    uint64_t bytes = header->bytes + header->n * header->inputs; /* < 2^55 */
    bool fits = tiered_stream_can_hold(stream, bytes) &&
                (stream->compressed || bytes == stream->file_bytes);
    return fits ? 0
                : tiered_fail_in(err, TIERED_ECORRUPT, stream->path,
                                 "says that it holds %" PRIu64
                                 " bytes, which its %" PRIu64 " bytes do not",
                                 bytes, stream->file_bytes);
}

static int read_header(struct tiered_stream *stream, unsigned min_rank,
                       unsigned max_rank, struct header *ret, struct tiered_error *err)
{
    uint8_t head[4], length[4];
    const char *what = max_rank > 1 ? "images" : "labels";
    if (read_exactly(stream, head, sizeof(head), "its header", err) < 0) {
        return -1;
    }
    unsigned rank = head[3];
    if (head[0] || head[1] || head[2] != 8 || rank < min_rank || rank > max_rank) {
        return tiered_fail_in(err, TIERED_EINVAL, stream->path,
                              "is not an IDX file of %s in unsigned bytes: it begins "
                              "%02x %02x %02x %02x, not 00 00 08 %02x",
                              what, head[0], head[1], head[2], head[3],
                              max_rank > 1 ? 3 : 1);
    }
    *ret = (struct header){.inputs = 1, .bytes = 4 + 4 * rank};
    for (unsigned i = 0; i < rank; i++) {
        if (read_exactly(stream, length, sizeof(length), "its header", err) < 0) {
            return -1;
        }
        uint32_t n = read_be32(length);
        if (i == 0) {
            ret->n = n;
        } else if (n == 0 || n > TIERED_MAX_INPUTS ||
                   (ret->inputs *= n) > TIERED_MAX_INPUTS) {
            return tiered_fail_in(err, TIERED_EINVAL, stream->path,
                                  "has images of no pixels or more than %u",
                                  TIERED_MAX_INPUTS);
        }
    }
    if (ret->n == 0 || ret->n > TIERED_MAX_ROWS) {
        return tiered_fail_in(err, TIERED_EINVAL, stream->path, "holds %" PRIu32 " %s",
                              ret->n, what);
    }
    return check_size(stream, ret, err);
}

static int expect_end(struct tiered_stream *stream, struct tiered_error *err)
{
    char more;
    size_t n;
    if (tiered_stream_read(stream, &more, 1, &n, err) < 0) {
        return -1;
    }
    return n == 0 ? 0
                  : tiered_fail_in(err, TIERED_ECORRUPT, stream->path,
                                   "goes on after its last value");
}

/* The memory follows the bytes that are really there. */
static int read_labels(struct tiered_stream *stream, uint32_t n,
                       struct tiered_source *source, struct tiered_labels *labels,
                       struct tiered_error *err)
{
    uint8_t chunk[CHUNK];
    for (uint32_t done = 0; done < n;) {
        uint32_t want = n - done < CHUNK ? n - done : CHUNK;
        if (read_exactly(stream, chunk, want, "its labels", err) < 0) {
            return -1;
        }
        uint32_t *grown =
            realloc(source->labels, ((size_t)done + want) * sizeof(*grown));
        if (!grown) {
            return tiered_fail(err, TIERED_ENOMEM, "out of memory");
        }
        source->labels = grown;
        for (uint32_t i = 0; i < want; i++) {
            grown[done + i] = tiered_labels_integer(labels, chunk[i]);
            if (grown[done + i] == UINT32_MAX) {
                return tiered_labels_fail(labels, stream->path, err);
            }
        }
        done += want;
    }
    source->n = n;
    return expect_end(stream, err);
}

static int scan_labels(struct tiered_source *source, struct tiered_labels *labels,
                       struct tiered_error *err)
{
    struct tiered_stream stream;
    struct header header;
    if (tiered_stream_open(&stream, source->labels_path, err) < 0) {
        return -1;
    }
    int result = read_header(&stream, 1, 1, &header, err);
    if (result == 0) {
        result = read_labels(&stream, header.n, source, labels, err);
    }
    tiered_stream_close(&stream);
    return result;
}

int tiered_idx_scan(struct tiered_source *source, struct tiered_labels *labels,
                    struct tiered_error *err)
{
    struct tiered_stream stream;
    struct header header;
    if (tiered_stream_open(&stream, source->path, err) < 0) {
        return -1;
    }
    int result = read_header(&stream, 2, MAX_RANK, &header, err);
    tiered_stream_close(&stream);
    if (result < 0 || scan_labels(source, labels, err) < 0) {
        return -1;
    }
    source->inputs = header.inputs;
    source->bytes = true;
    return header.n == source->n
               ? 0
               : tiered_fail_in(err, TIERED_EINVAL, source->path,
                                "holds %" PRIu32
                                " images, but its labels' file holds %" PRIu32
                                " labels",
                                header.n, source->n);
}

static int read_rows(struct tiered_stream *stream, const struct tiered_source *source,
                     const uint32_t *rows, uint32_t n_rows, uint8_t *out,
                     uint8_t *unwanted, struct tiered_error *err)
{
    char what[48];
    uint32_t next = 0;
    for (uint32_t row = 0; row < source->n; row++) {
        bool wanted = next < n_rows && rows[next] == row;
        uint8_t *into = wanted ? out + next * source->inputs : unwanted;
        snprintf(what, sizeof(what), "image %" PRIu32 " of %" PRIu32, row, source->n);
        if (read_exactly(stream, into, source->inputs, what, err) < 0) {
            return -1;
        }
        next += wanted;
    }
    return expect_end(stream, err);
}

int tiered_idx_read(const struct tiered_source *source, const uint32_t *rows,
                    uint32_t n_rows, void *out, struct tiered_error *err)
{
    struct tiered_stream stream;
    struct header header;
    uint8_t *unwanted = malloc(source->inputs);
    if (!unwanted) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    int result = tiered_stream_open(&stream, source->path, err);
    if (result == 0) {
        result = read_header(&stream, 2, MAX_RANK, &header, err);
        if (result == 0 && (header.n != source->n || header.inputs != source->inputs)) {
            result = tiered_fail_in(err, TIERED_EINVAL, source->path,
                                    "changed while it was read");
        }
        if (result == 0) {
            result = read_rows(&stream, source, rows, n_rows, out, unwanted, err);
        }
        tiered_stream_close(&stream);
    }
    free(unwanted);
    return result;
}
