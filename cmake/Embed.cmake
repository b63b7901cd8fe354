# -DIN=file -DOUT=file.c: the file's bytes as dashboard_html and dashboard_html_size.
file(READ ${IN} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
file(WRITE ${OUT} "#include <stddef.h>
extern const char dashboard_html[];
extern const size_t dashboard_html_size;
const char dashboard_html[] = {${bytes}0};
const size_t dashboard_html_size = sizeof(dashboard_html) - 1;
")
