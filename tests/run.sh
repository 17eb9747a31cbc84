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
export DROVER_TOOLS=$root/tools
export DROVER_TEST_ARTIFACTS=${DROVER_TEST_ARTIFACTS:-$root/artifacts} # screenshots
export PATH=$DROVER_TOOLS/prometheus/usr/bin:$PATH:/usr/sbin

steps=(packages build unit lint conformance hostile simulation integration cluster chaos debian systemd build_clang
	build_asan unit_asan hostile_asan integration_asan unit_valgrind build_fuzz fuzz distcheck in_tree quickstart bench)

# A step that has not ended by then hangs.
step_seconds=1500

# Steps with a Consul, which is built in the background meanwhile where there is none (tests/consul.py).
consul_steps=" conformance integration cluster integration_asan "

packages=(autoconf automake pkg-config gcc clang make libc6-dev libsystemd-dev libconfig-dev libcjson-dev
	libcurl4-openssl-dev libmicrohttpd-dev libsqlite3-dev librabbitmq-dev libcmocka-dev libclang-rt-14-dev llvm
	clang-format clang-tidy cppcheck valgrind python3 python3-pytest python3-pika python3-pkg-resources php-cli
	php-amqplib openssl sqlite3 curl chromium groff-base xz-utils git
	iproute2 util-linux procps libssl-dev debhelper lintian debootstrap systemd-container)

# Servers that tests start themselves: a package that is installed would start its own, so these are unpacked below
# tools/, each with what it needs of its kind. Erlang is among them because it comes with one (epmd), too.
rabbitmq_packages=(rabbitmq-server erlang-asn1 erlang-base erlang-crypto erlang-eldap erlang-ftp erlang-inets
	erlang-mnesia erlang-os-mon erlang-parsetools erlang-public-key erlang-runtime-tools erlang-snmp erlang-ssl
	erlang-syntax-tools erlang-tftp erlang-tools erlang-xmerl)
supervisor_packages=(supervisor)
prometheus_packages=(prometheus)

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		echo "packages are missing and there is no sudo; run this as root: $*"
		return 1
	fi
}

packages() {
	local missing=()
	for p in "${packages[@]}"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
	done
	has_consul || command -v go >/dev/null || missing+=(golang-go)
	[ ${#missing[@]} = 0 ] && unpacked prometheus && unpacked rabbitmq && unpacked supervisor && return
	as_root apt-get update -q || return
	[ ${#missing[@]} = 0 ] || as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -q --no-install-recommends "${missing[@]}" || return
	unpack prometheus "${prometheus_packages[@]}" && unpack rabbitmq "${rabbitmq_packages[@]}" &&
		unpack supervisor "${supervisor_packages[@]}"
}

has_consul() {
	command -v consul >/dev/null || [ -x "${XDG_CACHE_HOME:-$HOME/.cache}/drover-tests/consul-1.14.11" ]
}

# What needs it later waits for this one, or makes it itself.
build_consul() {
	has_consul || [ -n "$consul_build" ] || ! command -v go >/dev/null && return
	nice -n 10 /usr/bin/python3 "$top/tests/consul.py" build >"$logs/consul.log" 2>&1 </dev/null &
	consul_build=$!
}
consul_built() {
	[ -n "$consul_build" ] || return
	echo "   waiting for Consul to be built"
	wait "$consul_build" || sed 's/^/   | /' "$logs/consul.log"
	consul_build=
}

unpacked() { [ -e "$DROVER_TOOLS/$1/complete" ]; }

# unpack NAME PACKAGES...: their files, in tools/NAME.
unpack() {
	local name=$1 to=$DROVER_TOOLS/$1 new=$DROVER_TOOLS/.$1 deb
	shift
	unpacked "$name" && return
	rm -rf "$to" "$new" && mkdir -p "$new/debs" && (cd "$new/debs" && apt-get download -q "$@") || return
	for deb in "$new"/debs/*.deb; do dpkg-deb -x "$deb" "$new" || return; done
	rm -rf "$new/debs" && relocate "$new" "$to" && touch "$new/complete" && mv "$new" "$to"
}

# relocate NEW TO: Erlang's scripts find Erlang where it will lie.
relocate() {
	local scripts
	mapfile -t scripts < <(grep -rsIl '=/usr/lib/erlang' "$1/usr/lib/erlang/bin" "$1"/usr/lib/erlang/erts-*/bin)
	[ ${#scripts[@]} = 0 ] || sed -i "s|=/usr/lib/erlang|=$2/usr/lib/erlang|" "${scripts[@]}"
}

# configure_build NAME OPTIONS...: an out-of-tree build; configured once, rebuilt always.
configure_build() {
	local name=$1
	shift
	mkdir -p "$root/$name"
	{ [ -x "$top/configure" ] && [ "$top/configure" -nt "$top/configure.ac" ]; } || "$top/autogen.sh" || return
	[ -f "$root/$name/Makefile" ] || (cd "$root/$name" && "$top/configure" --enable-werror "$@") || return
	make -C "$root/$name" -j"$(nproc)" all
}

build() { configure_build gcc; }
build_clang() { configure_build clang CC=clang CFLAGS=-O1 && make -s -C "$root/clang" -j"$(nproc)" check TESTS=; }
build_asan() { configure_build asan --enable-sanitizers CFLAGS="-O1 -g"; }
build_fuzz() {
	configure_build fuzz CC=clang --enable-sanitizers --enable-fuzzers CFLAGS="-O1 -g" &&
		make -C "$root/fuzz" -j"$(nproc)" fuzzers
}

unit_tests() { make -s -C "$root/$1" print-unit-tests | tr ' ' '\n'; }

# run_unit BUILD: what each test program said, and which did not come to its end.
run_unit() {
	local build=$root/$1 r t
	make -s -C "$build" -j"$(nproc)" check
	r=$?
	for t in $(unit_tests "$1"); do
		cat "$build/$t.log" && grep -q "^\[==========\] .* run\.$" "$build/$t.log" && continue
		echo "$t: did not come to its end: 0 passed, 1 failed"
	done
	return $r
}
unit() { run_unit gcc; }
unit_asan() { run_unit asan; }

# Those that play the peers of a real program are left out, for valgrind would look at the peers; and
# test_process, whose system calls Debian's valgrind does not know (pidfd_open).
unit_valgrind() {
	unit_tests gcc | grep -vE '/test_(api|dispatcher|exec|process|roles|template)$' |
		(cd "$root/gcc" && xargs -P"$(nproc)" -I{} sh -c '
			valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
				--trace-children=no {} >"$0/valgrind.$(basename {})" 2>&1
			r=$?
			[ $r -ge 99 ] && echo "{}: ended with $r: 0 passed, 1 failed" >>"$0/valgrind.$(basename {})"
			cat "$0/valgrind.$(basename {})"
			[ $r = 0 ]' "$logs")
}

lint() {
	local r=0
	for check in "includes" "format" "kinds" "php" "needed $root/gcc" "static $root/gcc" "manual $root/gcc"; do
		# shellcheck disable=SC2086
		if "$top"/tests/lint/$check; then echo "$check: 1 passed, 0 failed"; else
			echo "$check: 0 passed, 1 failed"
			r=1
		fi
	done
	return $r
}

# beside_rabbitmq COMMAND...: runs it with a rabbitmq-server that the tests in it find.
beside_rabbitmq() { /usr/bin/python3 "$top/tests/rabbitmq.py" run "$@"; }

# beside_consul COMMAND...: runs it with two Consul agents whose addresses are in its environment.
beside_consul() { /usr/bin/python3 "$top/tests/consul.py" run "$@"; }

# Each broker and registry plugin against what it speaks to.
conformance() {
	local r=0
	conform sqlite || r=1
	beside_rabbitmq "$0" --inside conformance_rabbitmq || r=1
	conform_registry none without=others || r=1
	beside_consul "$0" --inside conformance_consul || r=1
	return $r
}
conformance_consul() {
	conform_registry consul set.address="$DROVER_TEST_CONSUL_SERVER" second.address="$DROVER_TEST_CONSUL_CLIENT" \
		set.session_ttl=10s set.lock_delay=1s takeover_ms=40000
}
conformance_rabbitmq() {
	local r=0 port management type
	read -r port management < <(/usr/bin/python3 "$top/tests/rabbitmq.py" ports) || return
	for type in classic quorum; do
		conform rabbitmq set.hosts="127.0.0.1:$port" set.management="http://127.0.0.1:$management" \
			set.queue_type=$type || r=1
	done
	return $r
}
# conform PLUGIN SETTINGS..., conform_registry PLUGIN SETTINGS...
conform() { conform_to broker brokers "$@"; }
conform_registry() { conform_to registry registries "$@"; }
conform_to() {
	local suite=$1 folder=$2 plugin=$3 d r
	shift 3
	echo "conformance of $plugin $*"
	d=$(mktemp -d) && "$root/gcc/tests/conformance/$suite" "$root/gcc/plugins/$folder/$plugin.so" set.state_dir="$d" "$@"
	r=$?
	rm -rf "$d"
	return $r
}

# A broker that speaks nonsense, to the plugin alone: 20,000 frames, with several seeds side by side, for it waits a lot.
run_hostile() {
	seq 4 | xargs -P4 -I{} "$root/$1/tests/hostile/rabbitmq" "$root/$1/plugins/brokers/rabbitmq.so" 5000 {}
}
hostile() { run_hostile gcc; }
hostile_asan() { run_hostile asan; }

# run_pytest BUILD FOLDER OPTIONS...: with a rabbitmq-server that they share.
run_pytest() { run_pytest_in beside_rabbitmq "$@"; }

# run_pytest_in COMMAND BUILD FOLDER OPTIONS...: tests wait more than they work, so some files run at a time, each with
# its own output; what pytest itself ends with (1: tests failed and are counted).
run_pytest_in() {
	local beside=$1 build=$2 folder=$3 out r
	shift 3
	out=$(mktemp -d) || return
	trap : INT # what was said until then is worth reading
	find "$top/tests/$folder" -name 'test_*.py' | sort |
		DROVER_BUILD=$root/$build $beside xargs -P3 -I{} sh -c '
			file={} out=$0/$(basename {})
			/usr/bin/python3 -m pytest -q -p no:cacheprovider --color=no -rfEs --durations=3 "$@" {} >"$out" 2>&1
			r=$?
			[ $r = 5 ] && r=0 # this run leaves out all tests of the file
			[ $r -gt 1 ] && echo "$file: pytest ended with $r: 0 passed, 1 failed" >>"$out"
			[ $r = 0 ]' "$out" "$@"
	r=$?
	cat "$out"/*
	rm -rf "$out"
	return $r
}
integration() { run_pytest gcc integration; }
integration_asan() {
	local r reports found
	# Handlers of other users write there too.
	reports=$(mktemp -d) && chmod 1777 "$reports" || return
	ASAN_OPTIONS=detect_leaks=1:log_path=$reports/asan UBSAN_OPTIONS=print_stacktrace=1 \
		run_pytest asan integration -m "not slow"
	r=$?
	# The leak checker's remarks about processes that are being killed are none.
	mapfile -t found < <(grep -slE "ERROR: |runtime error: " "$reports"/*)
	if [ ${#found[@]} != 0 ]; then
		cat "${found[0]}"
		echo "${#found[@]} processes had something to report, of which this was the first:"
		grep -h "^SUMMARY" "${found[@]}" | sort | uniq -c
		echo "sanitizers: 0 passed, 1 failed"
		r=1
	fi
	rm -rf "$reports"
	return $r
}
# Packages as a Debian host gets them, in build/debs; lintian's errors are errors.
debian() {
	/usr/bin/python3 "$top/tests/container.py" debs "$root/debs" && lintian --fail-on error "$root"/debs/*.changes
}
# They are installed in containers, whose systemd runs the shipped unit. Needs root and what systemd-nspawn needs: where
# that is missing, it is said why, and all of them have failed.
systemd() {
	export DROVER_DEBS=$root/debs
	if /usr/bin/python3 "$top/tests/container.py" check; then
		run_pytest_in env gcc systemd -s
	else
		echo "systemd: 0 passed, $(/usr/bin/python3 -m pytest -q -p no:cacheprovider --collect-only "$top/tests/systemd" |
			grep -c ::) failed"
		return 1
	fi
}
# Each file has a network, a Consul and a RabbitMQ of its own, and needs root for that.
cluster() { run_pytest_in env gcc clusters -s; }
chaos() { run_pytest gcc chaos; }
simulation() {
	local r=0
	"$root/gcc/tests/sim/sim" "$top/tests/sim/traces" || r=1
	"$root/gcc/tests/sim/scale" || r=1
	return $r
}

# Two targets at a time, each on its kept corpus: a minute for what reads the most, less for the others.
fuzz() {
	make -s -C "$root/fuzz" print-fuzzers | tr ' ' '\n' | awk '{ print (/_(config|frame)$/ ? 60 : 20), $0 }' | sort -rn |
		xargs -P2 -L1 sh -c '
			name=${4##*/fuzz_}
			work=$(mktemp -d)
			"$1/fuzz/$4" -max_total_time="$3" -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
				-artifact_prefix="$2/fuzz.$name." "$work" "$0/$name" >"$2/fuzz.$name" 2>&1
			r=$?
			rm -rf "$work"
			if [ $r = 0 ]; then
				sed -n "s/^stat::number_of_executed_units: */fuzz_$name: inputs tried: /p" "$2/fuzz.$name"
				echo "fuzz_$name: 1 passed, 0 failed"
			else
				tail -n 40 "$2/fuzz.$name"
				echo "fuzz_$name: 0 passed, 1 failed"
			fi
			[ $r = 0 ]' "$top/tests/fuzz/corpus" "$root" "$logs"
}

# Builds what `make dist` packs, tests it, installs it, runs what is installed (tests/installed.sh), removes it.
distcheck() { make -C "$root/gcc" -j"$(nproc)" distcheck DISTCHECK_CONFIGURE_FLAGS=--enable-werror; }

# on_checkout FUNCTION: what it does in a clean checkout leaves nothing there that git does not ignore.
on_checkout() {
	local d r
	d=$(mktemp -d) && git clone -q "$top" "$d/drover" && cd "$d/drover" && "$1" "$d" && git status --short &&
		[ -z "$(git status --short)" ]
	r=$?
	rm -rf "$d"
	return $r
}

# A newcomer's first command.
quickstart() { on_checkout try_quickstart; }
try_quickstart() { ./quickstart.sh --exit; }

# A build in the source tree; what it installs works, and goes without a trace.
in_tree() { on_checkout try_in_tree; }
try_in_tree() {
	./autogen.sh && ./configure --enable-werror --prefix="$1/prefix" && make -j"$(nproc)" && make install installcheck &&
		make uninstall && find "$1/prefix" ! -type d -o -name '*drover*' &&
		[ -z "$(find "$1/prefix" ! -type d -o -name '*drover*')" ]
}

bench() { "$top/tests/bench/run.sh" --quick "$root/gcc"; }

# count LOG: "PASSED FAILED" of what pytest, cmocka and our own tools say at the ends of their lines.
count() {
	awk '
		/^\[  PASSED  \] [0-9]+ test/ { p += $4 }
		/^\[  FAILED  \] [0-9]+ test/ { f += $4 }
		/^(.*: )?[0-9]+ passed, [0-9]+ failed$/ { p += $(NF - 3); f += $(NF - 1) }
		/^(=+ )?[0-9]+ [a-z]+.* in [0-9.]+s( |$)/ {
			for (i = 2; i <= NF; i++) {
				if ($i ~ /^passed,?$/) p += $(i - 1)
				if ($i ~ /^(failed|errors?),?$/) f += $(i - 1)
			}
		}
		END { print p + 0, f + 0 }' "$1"
}

# run_step STEP: a step that counts nothing is one test itself, and one that fails without a failed test failed.
run_step() {
	local step=$1 rc p f start=$SECONDS
	echo "== $step"
	timeout --signal=INT --kill-after=30 "$step_seconds" "$0" --inside "$step" >"$logs/$step.log" 2>&1 </dev/null &
	running=$!
	wait "$running"
	rc=$?
	[ $rc != 124 ] || echo "$step: stopped after $step_seconds s" >>"$logs/$step.log"
	read -r p f < <(count "$logs/$step.log")
	[ $rc != 0 ] || [ $((p + f)) != 0 ] || p=1
	[ $rc = 0 ] || [ "$f" != 0 ] || f=1
	passed=$((passed + p))
	failed=$((failed + f))
	echo "   $p ok, $f not ok; $((SECONDS - start)) s"
	[ "$f" = 0 ] && return
	failures+=("$step")
	echo "   what failed, and the end of $logs/$step.log:"
	{
		# What pytest, cmocka and ours say of a test, which may be far from the end.
		grep -aE -m 40 '^(E  |_+ .* _+$|FAILED |ERROR |\[  FAILED  \]|\[  ERROR   \])|: 0 passed, 1 failed$' "$logs/$step.log" |
			cut -c1-500
		echo
		tail -n "${DROVER_LOG_LINES:-100}" "$logs/$step.log"
	} | sed 's/^/   | /; s/passed, \([0-9]*\) failed$/passed and \1 failed/'
	return 1
}

wants_consul() {
	local s
	for s in "${steps[@]}"; do [[ $consul_steps != *" $s "* ]] || return 0; done
	return 1
}

known() {
	local s
	for s in "${steps[@]}"; do [ "$s" = "$1" ] && return; done
	echo "tests/run.sh: there is no step \"$1\"; the steps are ${steps[*]}" >&2
	exit 2
}

case ${1:-} in
--list)
	printf '%s\n' "${steps[@]}"
	exit 0
	;;
--inside)
	"$2"
	exit
	;;
esac
for step in "$@"; do known "$step"; done
[ $# -gt 0 ] && steps=("$@")
mkdir -p "$logs"
passed=0
failed=0
failures=()
set -m # a step is a process group, to be ended whole
running= consul_build=
trap 'for g in $running $consul_build; do kill -INT -- "-$g"; done; wait; exit 130' INT TERM
for step in "${steps[@]}"; do
	[ "$step" = packages ] || ! wants_consul || build_consul
	[[ $consul_steps != *" $step "* ]] || consul_built
	run_step "$step" && continue
	case $step in
	packages | build) break ;; # nothing else can work
	esac
done
[ ${#failures[@]} = 0 ] || echo "failed: ${failures[*]}"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
