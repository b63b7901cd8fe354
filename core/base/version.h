/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TIERED_CORE_VERSION_H
#define TIERED_CORE_VERSION_H

#define TIERED_VERSION "0.1.0"

#endif
