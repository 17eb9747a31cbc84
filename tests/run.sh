#!/usr/bin/env bash
# Installs what tests need, builds Drover in several ways and runs all tests; the last line is "N passed, N failed".
#
#     tests/run.sh              everything
#     tests/run.sh STEP ...     some of it: see `tests/run.sh --list`
#
# Builds lie in build/ (or $DROVER_BUILD_ROOT), the output of each step in build/log/.
set -u -o pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
root=${DROVER_BUILD_ROOT:-$top/build}
logs=$root/log
mkdir -p "$logs"
passed=0
failed=0
failures=()

packages=(autoconf automake pkg-config gcc clang make libc6-dev libsystemd-dev libconfig-dev
	libcjson-dev libcurl4-openssl-dev libmicrohttpd-dev libsqlite3-dev libcmocka-dev
	libclang-rt-14-dev llvm clang-format clang-tidy cppcheck valgrind python3 python3-pytest sqlite3 curl
	prometheus procps man-db groff xz-utils gdb strace)

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

packages() {
	local missing=()
	for p in "${packages[@]}"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
	done
	[ ${#missing[@]} = 0 ] && return 0
	as_root apt-get update -q &&
		# Debian's prometheus brings promtool; its server is not to be started.
		as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends \
			"${missing[@]}"
}

# configure_build NAME OPTIONS...: an out-of-tree build; configured once, rebuilt always.
configure_build() {
	local name=$1
	shift
	mkdir -p "$root/$name"
	[ -x "$top/configure" ] && [ "$top/configure" -nt "$top/configure.ac" ] || "$top/autogen.sh" || return
	[ -f "$root/$name/Makefile" ] || (cd "$root/$name" && "$top/configure" --enable-werror "$@") || return
	make -C "$root/$name" -j"$(nproc)" all
}

build() { configure_build gcc; }
build_clang() { configure_build clang CC=clang CFLAGS=-O1; }
build_asan() { configure_build asan --enable-sanitizers CFLAGS="-O1 -g"; }
build_fuzz() {
	configure_build fuzz CC=clang --enable-sanitizers --enable-fuzzers CFLAGS="-O1 -g" &&
		make -C "$root/fuzz" -j"$(nproc)" fuzzers
}

# The counts of each test program, from what cmocka said.
unit_counts() {
	cat "$1"/tests/unit/*.log
	make -s -C "$1" print-unit-tests | tr ' ' '\n' | sort >"$logs/unit.expected"
	for t in $(cat "$logs/unit.expected"); do
		[ -f "$1/$t.trs" ] || echo "$t: did not run: 0 passed, 1 failed"
	done
}
unit() { make -C "$root/gcc" -j"$(nproc)" check; local r=$?; unit_counts "$root/gcc"; return $r; }
unit_asan() { make -C "$root/asan" -j"$(nproc)" check; local r=$?; unit_counts "$root/asan"; return $r; }
unit_valgrind() {
	local r=0
	for t in $(make -s -C "$root/gcc" print-unit-tests); do
		if valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite \
			--trace-children=no "$root/gcc/$t" >"$logs/valgrind.$(basename "$t")" 2>&1; then
			echo "$t: 1 passed, 0 failed"
		else
			tail -40 "$logs/valgrind.$(basename "$t")"
			echo "$t: 0 passed, 1 failed"
			r=1
		fi
	done
	return $r
}

lint() {
	local r=0
	for check in "includes" "format" "needed $root/gcc" "static $root/gcc" "manual $root/gcc"; do
		# shellcheck disable=SC2086
		if "$top"/tests/lint/$check; then echo "$check: 1 passed, 0 failed"; else echo "$check: 0 passed, 1 failed"; r=1; fi
	done
	return $r
}

conformance() {
	local d
	d=$(mktemp -d) && "$root/gcc/tests/conformance/broker" "$root/gcc/plugins/brokers/sqlite.so" set.path="$d/queue"
	local r=$?
	rm -rf "$d"
	return $r
}

# run_pytest BUILD PATHS...
run_pytest() {
	local build=$1
	shift
	DROVER_BUILD=$root/$build /usr/bin/python3 -m pytest -q -p no:cacheprovider --color=no -rfE --durations=5 "$@"
}
integration() { run_pytest gcc "$top/tests/integration"; }
integration_asan() {
	ASAN_OPTIONS=detect_leaks=1:log_path=$logs/asan UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
		run_pytest asan "$top/tests/integration" -m "not slow"
}
chaos() { run_pytest gcc "$top/tests/chaos"; }
simulation() { "$root/gcc/tests/sim/sim" "$top/tests/sim/traces"; }

# Each target for 60 s on its kept corpus, two at a time.
fuzz() {
	local r=0 seconds=${DROVER_FUZZ_SECONDS:-60} targets t
	targets=$(make -s -C "$root/fuzz" print-fuzzers)
	for t in $targets; do
		local name=${t##*/fuzz_}
		while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
		(
			work=$(mktemp -d)
			"$root/fuzz/$t" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
				-artifact_prefix="$logs/" "$work" "$top/tests/fuzz/corpus/$name" >"$logs/fuzz.$name" 2>&1
			echo $? >"$logs/fuzz.$name.rc"
			rm -rf "$work"
		) &
	done
	wait
	for t in $targets; do
		local name=${t##*/fuzz_}
		if [ "$(cat "$logs/fuzz.$name.rc")" = 0 ]; then
			grep -h "stat::number_of_executed_units" "$logs/fuzz.$name"
			echo "fuzz_$name: 1 passed, 0 failed"
		else
			tail -30 "$logs/fuzz.$name"
			echo "fuzz_$name: 0 passed, 1 failed"
			r=1
		fi
	done
	return $r
}

distcheck() { make -C "$root/gcc" distcheck DISTCHECK_CONFIGURE_FLAGS=--enable-werror; }

# A newcomer's first two commands, on a clean checkout.
quickstart() {
	local d r
	d=$(mktemp -d)
	git clone -q "$top" "$d/drover" && (cd "$d/drover" && ./quickstart.sh --exit)
	r=$?
	rm -rf "$d"
	return $r
}

bench() { "$top/tests/bench/run.sh" --quick "$root/gcc"; }

steps=(packages build unit lint conformance simulation integration chaos build_clang build_asan unit_asan
	integration_asan unit_valgrind build_fuzz fuzz distcheck quickstart bench)

# Adds up the counts a step printed; a step that printed none counts as one test itself.
count() {
	local log=$1 rc=$2 p f
	read -r p f < <(awk '
		match($0, /[0-9]+ passed/) { split(substr($0, RSTART), a, " "); p += a[1] }
		match($0, /[0-9]+ failed/) { split(substr($0, RSTART), a, " "); f += a[1] }
		match($0, /[0-9]+ errors?( |$)/) && / in [0-9.]+s/ { split(substr($0, RSTART), a, " "); f += a[1] }
		/^\[  PASSED  \] [0-9]+ test/ { p += $4 }
		/^\[  FAILED  \] [0-9]+ test/ { f += $4 }
		END { print p + 0, f + 0 }' "$log")
	[ "$p" = 0 ] && [ "$f" = 0 ] && { [ "$rc" = 0 ] && p=1; }
	[ "$rc" != 0 ] && [ "$f" = 0 ] && f=1
	passed=$((passed + p))
	failed=$((failed + f))
	echo "   $p ok, $f not ok"
}

run_step() {
	local step=$1 rc start=$SECONDS
	echo "== $step"
	"$step" >"$logs/$step.log" 2>&1 </dev/null
	rc=$?
	count "$logs/$step.log" $rc
	echo "   $((SECONDS - start)) s"
	if [ $rc != 0 ]; then
		failures+=("$step")
		tail -n "${DROVER_LOG_LINES:-60}" "$logs/$step.log" | sed 's/^/   | /; s/passed, \([0-9]*\) failed$/passed and \1 failed/'
	fi
	return $rc
}

if [ "${1:-}" = --list ]; then
	printf '%s\n' "${steps[@]}"
	exit 0
fi
[ $# -gt 0 ] && steps=("$@")
for step in "${steps[@]}"; do
	run_step "$step" && continue
	case $step in
	packages | build) break ;; # nothing else can work
	esac
done
[ ${#failures[@]} = 0 ] || echo "failed: ${failures[*]}"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
