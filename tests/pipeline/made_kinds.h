/*
 * made_kinds.h - a small base and an adapter that needs every kind of preparation and
 * edit: DoRA with a row that two blocks share and with norms of columns, factors that
 * are repacked, a replaced tensor and replaced rows
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_MADE_KINDS_H
#define TESTS_MADE_KINDS_H

/* Write base/ and kinds/base/, which is the adapter, below `directory`, which exists. */
void made_kinds_write(const char *directory);

#endif
