/* SPDX-License-Identifier: Apache-2.0 */
/* What a plugin's file exports: tiered_plugin, and nothing that another plugin or the
   program could trip over. */
#include "orchestrator/check.h"

#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct image {
    const uint8_t *data;
    size_t size;
};

static const void *at(const struct image *image, uint64_t offset, uint64_t size)
{
    uint64_t end;
    return tiered_add(offset, size, &end) && end <= image->size ? image->data + offset
                                                                : NULL;
}

/* Marks that linkers, sanitizers and the C++ library's shared templates leave. */
static bool is_harmless(const char *name, unsigned char info)
{
    unsigned binding = ELF64_ST_BIND(info);
    return strcmp(name, "tiered_plugin") == 0 || name[0] == 0 ||
           strncmp(name, "__", 2) == 0 || strcmp(name, "_init") == 0 ||
           strcmp(name, "_fini") == 0 || strcmp(name, "_edata") == 0 ||
           strcmp(name, "_end") == 0 ||
           (strncmp(name, "_Z", 2) == 0 &&
            (binding == STB_WEAK || binding == STB_GNU_UNIQUE));
}

static int check_table(const struct image *image, const ElfW(Shdr) * table,
                       const ElfW(Shdr) * names, struct tiered_error *err)
{
    const ElfW(Sym) *symbols = at(image, table->sh_offset, table->sh_size);
    const char *text = at(image, names->sh_offset, names->sh_size);
    if (!symbols || !text || names->sh_size == 0 || text[names->sh_size - 1]) {
        return tiered_fail(err, TIERED_ECORRUPT, "its table of symbols is damaged");
    }
    for (size_t i = 0; i < table->sh_size / sizeof(*symbols); i++) {
        const ElfW(Sym) *s = &symbols[i];
        bool exported = s->st_shndx != SHN_UNDEF &&
                        ELF64_ST_BIND(s->st_info) != STB_LOCAL &&
                        ELF64_ST_VISIBILITY(s->st_other) == STV_DEFAULT;
        if (s->st_name < names->sh_size && exported &&
            !is_harmless(text + s->st_name, s->st_info)) {
            return tiered_fail(err, TIERED_EINVAL,
                               "exports '%.80s'; only tiered_plugin may be visible: "
                               "make it static, or compile with -fvisibility=hidden",
                               text + s->st_name);
        }
    }
    return 0;
}

static int check_image(const struct image *image, struct tiered_error *err)
{
    const ElfW(Ehdr) *header = at(image, 0, sizeof(*header));
    const ElfW(Shdr) *sections =
        header
            ? at(image, header->e_shoff, (uint64_t)header->e_shnum * sizeof(ElfW(Shdr)))
            : NULL;
    for (size_t i = 0; sections && i < header->e_shnum; i++) {
        if (sections[i].sh_type == SHT_DYNSYM &&
            sections[i].sh_link < header->e_shnum) {
            return check_table(image, &sections[i], &sections[sections[i].sh_link],
                               err);
        }
    }
    return tiered_fail(err, TIERED_EINVAL,
                       "has no section headers to read its symbols from");
}

int check_symbols(struct check *check, struct tiered_error *err)
{
    int fd = open(check->path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) < 0 || info.st_size <= 0) {
        return tiered_fail(err, TIERED_EIO, "cannot be read again");
    }
    struct image image = {.size = (size_t)info.st_size};
    void *data = mmap(NULL, image.size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (data == MAP_FAILED) {
        return tiered_fail(err, TIERED_EIO, "cannot be read again");
    }
    image.data = data;
    int result = check_image(&image, err);
    munmap(data, image.size);
    return result;
}
