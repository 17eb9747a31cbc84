#!/usr/bin/env bash
# Measures Drover, each figure against its reference in the same run: rounds interleaved, medians shown.
#
#     tests/bench/run.sh [--quick] [BUILD] [NAME ...]      NAME: throughput burst fork respawn memory idle start
#                                                           rabbitmq rabbitmq_crash rabbitmq_back ready
#                                                           restart noise; when named
#                                                           only: cluster, or one of bench/cluster.py's
#
# Without --quick: five rounds or more, and the table for docs/benchmarks.md; exit 1 if a bound is missed. With it: one short
# round, for CI, which fails only if something is ten times worse than its bound. BUILD is a build without sanitizers, made
# with optimisation; default build/gcc.
set -eu
exec /usr/bin/python3 "$(dirname "$0")/bench.py" "$@"
