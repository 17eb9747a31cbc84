/* SPDX-License-Identifier: MIT */
/*
 * Splits a type's total over the nodes that can serve it: Sainte-Laguë with hashed signposts.
 * Decides shares only; who is eligible and what the total is comes from the plan. Called by every
 * supervisor for itself, and by droverctl's view of the cluster; all must come to the same numbers,
 * on any machine, hence integers.
 *
 * The seat m of node j is given out when a level x, rising from 0, reaches (m + h_j) / w_j. So the
 * shares for a total are found by bisecting the level at which that many seats are out. Levels are
 * in units of 2^-24; few seats share a unit, and those are told apart exactly.
 */
#include "policy/apportion.h"

#include <stdbool.h>
#include <string.h>

#include "base/hash.h"

#include "base/banned.h"

#define FRACTION_BITS 24

/* Everything here stays below 2^61: a level is at most 2^44, a weight below 2^16. */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

uint64_t apportion_hash(const char *text)
{
	return mix(hash_bytes(HASH_NOTHING, text, strlen(text)));
}

/* In (0, 1) as a fraction of 2^24. */
static uint64_t signpost(uint64_t type, uint64_t node)
{
	uint64_t h = mix(type ^ node) >> (64 - FRACTION_BITS);

	return h ? h : 1;
}

static uint64_t weight_of(const struct apportion_member *member)
{
	return member->weight < APPORTION_WEIGHT_MAX ? member->weight : APPORTION_WEIGHT_MAX;
}

/* Seats that a member has at this level. */
static int seats_at(uint64_t type, const struct apportion_member *member, uint64_t level)
{
	uint64_t reached = level * weight_of(member), h = signpost(type, member->node), seats;

	if (!member->weight || reached < h)
		return 0;
	seats = ((reached - h) >> FRACTION_BITS) + 1;
	if (member->cap >= 0 && seats > (uint64_t)member->cap)
		return member->cap;
	return seats > APPORTION_TOTAL_MAX ? APPORTION_TOTAL_MAX : (int)seats;
}

static int64_t all_seats_at(uint64_t type, const struct apportion_member *members, size_t n,
			    uint64_t level)
{
	int64_t seats = 0;

	for (size_t i = 0; i < n; i++)
		seats += seats_at(type, &members[i], level);
	return seats;
}

/* The highest level at which no more than total seats are out. */
static uint64_t find_level(uint64_t type, int total, const struct apportion_member *members,
			   size_t n)
{
	uint64_t low = 0, high = ((uint64_t)total + 1) << FRACTION_BITS, middle;

	while (high - low > 1) {
		middle = low + (high - low) / 2;
		if (all_seats_at(type, members, n, middle) <= total)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/*
 * Does a's next seat, the one that comes out in the unit after level, come before b's? Both at (m +
 * h) / w, compared crosswise; the seats count from 0, so the next one's number is how many are out.
 */
static bool comes_before(uint64_t type, const struct apportion_member *a,
			 const struct apportion_member *b, uint64_t level)
{
	uint64_t at_a =
		((uint64_t)seats_at(type, a, level) << FRACTION_BITS) + signpost(type, a->node);
	uint64_t at_b =
		((uint64_t)seats_at(type, b, level) << FRACTION_BITS) + signpost(type, b->node);
	uint64_t key_a = at_a * weight_of(b), key_b = at_b * weight_of(a);

	return key_a != key_b ? key_a < key_b : a->node < b->node;
}

/*
 * The seats of one member. What bisection leaves over, `rest`, are seats within one unit of the
 * level; a member has at most one of them there for each 2^24 of weight, that is one.
 */
static int share_of(uint64_t type, int rest, uint64_t level, const struct apportion_member *members,
		    size_t n, size_t self)
{
	const struct apportion_member *me = &members[self];
	int seats = seats_at(type, me, level), before = 0;

	if (!rest || seats_at(type, me, level + 1) == seats)
		return seats;
	for (size_t i = 0; i < n; i++) {
		if (i == self ||
		    seats_at(type, &members[i], level + 1) == seats_at(type, &members[i], level))
			continue;
		if (comes_before(type, &members[i], me, level))
			before++;
	}
	return seats + (before < rest);
}

static int clamp_total(int total)
{
	return total < 0 ? 0 : total > APPORTION_TOTAL_MAX ? APPORTION_TOTAL_MAX : total;
}

static const struct apportion_member *member_at(const struct apportion_among *among, size_t i)
{
	size_t stride = among->stride ? among->stride : sizeof *among->first;

	return (const struct apportion_member *)((const char *)among->first +
						 (among->some ? among->some[i] : i) * stride);
}

static int cap_of(const struct apportion_among *among, const struct apportion_member *member)
{
	if (member->cap < 0 || (among->cap >= 0 && among->cap < member->cap))
		return among->cap;
	return member->cap;
}

/*
 * Whether the others' seats before seat m of `self`, and its own, leave room for it in the total.
 * Seat s of another comes before it when (s + h) / w is less, or the same and its node's hash lower;
 * `at` is where seat m would lie for the other's weight, so that is s + h < at, exactly.
 */
static bool seat_is_in(uint64_t type, int total, const struct apportion_among *among, size_t self,
		       int m)
{
	const struct apportion_member *me = member_at(among, self);
	uint64_t mine = ((uint64_t)m << FRACTION_BITS) + signpost(type, me->node);
	uint64_t weight = weight_of(me), known = weight, at = mine;
	int64_t room = (int64_t)total - m;
	bool exact = true;

	for (size_t i = 0; i < among->n && room > 0; i++) {
		const struct apportion_member *other = member_at(among, i);
		uint64_t h, end;
		int64_t seats;
		int cap;

		if (i == self || !other->weight)
			continue;
		if (weight_of(other) != known) {
			known = weight_of(other);
			at = mine * known / weight;
			exact = at * weight == mine * known;
		}
		h = signpost(type, other->node);
		end = at + (!exact || other->node < me->node); /* its seats lie below this */
		if (end <= h)
			continue;
		seats = (int64_t)((end - h - 1) >> FRACTION_BITS) + 1;
		cap = cap_of(among, other);
		room -= cap >= 0 && seats > cap ? cap : seats;
	}
	return room > 0;
}

/* What its weight would give it if nobody had a cap: where to begin looking. */
static int guess(int total, const struct apportion_among *among, size_t self)
{
	uint64_t own = weight_of(member_at(among, self)), all = own;

	for (size_t i = 0; i < among->n; i++)
		if (i != self)
			all += weight_of(member_at(among, i));
	return (int)((uint64_t)total * own / (all ? all : 1));
}

int apportion_share_among(const char *type, int total, const struct apportion_among *among,
			  size_t self)
{
	const struct apportion_member *me = member_at(among, self);
	int low, high, at, step = 1, cap = cap_of(among, me);
	uint64_t hash = apportion_hash(type);

	total = clamp_total(total);
	high = cap >= 0 && cap < total ? cap : total;
	/* Most types have fewer workers than there are nodes: one look tells. */
	if (!me->weight || !high || !seat_is_in(hash, total, among, self, 0))
		return 0;
	low = 1;
	at = guess(total, among, self);
	while (low < high) {
		/* By growing steps from the guess, then by halves: low <= at < high. */
		if (at < low || at >= high)
			at = low + (high - low) / 2;
		if (seat_is_in(hash, total, among, self, at)) {
			low = at + 1;
			at += step;
		} else {
			high = at;
			at -= step;
		}
		step *= 2;
	}
	return low;
}

int apportion_share(const char *type, int total, const struct apportion_member *members, size_t n,
		    size_t self)
{
	const struct apportion_among among = {.first = members, .n = n, .cap = -1};

	return apportion_share_among(type, total, &among, self);
}

void apportion_all(const char *type, int total, const struct apportion_member *members, size_t n,
		   int *ret_shares)
{
	uint64_t hash = apportion_hash(type), level;
	int rest;

	total = clamp_total(total);
	level = find_level(hash, total, members, n);
	rest = (int)(total - all_seats_at(hash, members, n, level));
	for (size_t i = 0; i < n; i++)
		ret_shares[i] = share_of(hash, rest, level, members, n, i);
}
