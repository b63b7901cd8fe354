/* SPDX-License-Identifier: Apache-2.0 */
/* A shared object that is no plugin: refused. */
extern __attribute__((visibility("default"))) const int some_other_symbol;
const int some_other_symbol = 1;
