/* SPDX-License-Identifier: MIT */
/*
 * From a type's total to each node's share: seats go by highest priority weight / (seat +
 * hash(type, node)), the hash in (0,1), seats counted from 0. Every node computes this alone and
 * all must agree, so it is integers only, and the hash is fixed for good: 64-bit FNV-1a, finished
 * by the mixer of splitmix64; a type's and a node's are combined by xor, mixed again, and the upper
 * 24 bits are the fraction. Ties go to the lower node hash.
 *
 * The shares sum up to the total exactly, nobody's share falls when the total grows, nobody's falls
 * when another node leaves, and only the newcomer's rises when one joins.
 */
#ifndef DROVER_POLICY_APPORTION_H
#define DROVER_POLICY_APPORTION_H

#include <stddef.h>
#include <stdint.h>

#define APPORTION_TOTAL_MAX  (1 << 20) /* larger totals count as this one */
#define APPORTION_WEIGHT_MAX 65535     /* larger weights count as this one */

struct apportion_member {
	uint64_t node;   /* apportion_hash of the node's id */
	uint32_t weight; /* 0: gets nothing */
	int cap;         /* most it takes (node_max); < 0: no bound */
};

uint64_t apportion_hash(const char *text);

/* Some members, wherever they lie, with a bound of their own. */
struct apportion_among {
	const struct apportion_member *first;
	size_t stride;        /* bytes from one member to the next; 0: they lie side by side */
	const unsigned *some; /* the indices of the n; NULL: the first n */
	size_t n;
	int cap; /* most that each takes, besides its own; < 0: no bound */
};

/* The share of the one at `self`, an index into `some` where there is one. O(n), allocates nothing. */
int apportion_share_among(const char *type, int total, const struct apportion_among *among,
			  size_t self);

/*
 * The share of members[self] among n eligible members; their order does not matter. The shares of
 * all sum up to the total, or to what the caps and weights leave if that is less. O(n).
 */
int apportion_share(const char *type, int total, const struct apportion_member *members, size_t n,
		    size_t self);

/* The shares of all: ret_shares has room for n. */
void apportion_all(const char *type, int total, const struct apportion_member *members, size_t n,
		   int *ret_shares);

#endif
