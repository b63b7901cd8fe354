/* SPDX-License-Identifier: Apache-2.0 */
/* tiered-agent: hosts one or more nodes of a tree on one host. */
#include <stdio.h>

#include "core/base/version.h"

int main(void)
{
    puts("tiered-agent " TIERED_VERSION);
    return 0;
}
