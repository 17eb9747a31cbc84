/* SPDX-License-Identifier: MIT */
/*
 * A replaced handler on trial: when it is proven, when it is refused, and that nothing is concluded
 * where the old one was no better.
 */
#include "policy/rollover.h"

#include "unit.h"

#include "base/banned.h"

static const struct {
	const char *name;
	struct rollover_input input; /* old worked, old crashed, verdicts, crashed, failed starts */
	enum rollover_judgement judgement;
} rows[] = {
	{"nothing yet", {true, false, 0, 0, 0}, ROLLOVER_TRYING},
	{"four verdicts", {true, false, 4, 0, 0}, ROLLOVER_TRYING},
	{"five verdicts", {true, false, 5, 0, 0}, ROLLOVER_PROVEN},
	{"five verdicts and crashes", {true, false, 5, 9, 9}, ROLLOVER_PROVEN},
	{"one crash may be poison", {true, false, 0, 1, 0}, ROLLOVER_TRYING},
	{"two crashes", {true, false, 0, 2, 0}, ROLLOVER_REFUSE},
	{"two crashes, one verdict", {true, false, 1, 2, 0}, ROLLOVER_REFUSE},
	{"as many verdicts as crashes", {true, false, 2, 2, 0}, ROLLOVER_TRYING},
	{"mostly crashes", {true, false, 4, 5, 0}, ROLLOVER_REFUSE},
	{"two failed starts", {true, false, 0, 0, 2}, ROLLOVER_TRYING},
	{"three failed starts", {true, false, 0, 0, 3}, ROLLOVER_REFUSE},
	{"the old one crashed as well", {true, true, 0, 9, 9}, ROLLOVER_TRYING},
	{"the old one never worked", {false, false, 0, 9, 9}, ROLLOVER_TRYING},
	{"proven although the old one crashed", {true, true, 5, 0, 0}, ROLLOVER_PROVEN},
	{"the first ever", {false, false, 5, 0, 0}, ROLLOVER_PROVEN},
};

static void test_judge(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++)
		want_int(rows[i].name, rollover_judge(&rows[i].input), rows[i].judgement);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_judge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
