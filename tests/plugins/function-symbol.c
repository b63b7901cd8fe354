/* SPDX-License-Identifier: Apache-2.0 */
/* The right symbol, but a function: refused without reading it as a descriptor. */
extern __attribute__((visibility("default"))) int tiered_plugin(void);
int tiered_plugin(void)
{
    return 0;
}
