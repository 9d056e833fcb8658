#!/usr/bin/env bash
# Lays out under target/test-env what the client tests need: Python clients (one venv each), an S3 server, and Apache Kafka's
# clients, tools and broker from Maven Central. Every part has a stamp of the files it was made from; a second run does nothing.
set -euo pipefail
cd "$(dirname "$0")"
env_dir="${CARGO_TARGET_DIR:-../target}/test-env"
mkdir -p "$env_dir"
env_dir="$(cd "$env_dir" && pwd)"

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# need COMMAND WHAT-TO-DO
need() { command -v "$1" >/dev/null 2>&1 || die "'$1' is missing. $2"; }

# fresh STAMP FILE…: true when STAMP was written for exactly these files.
fresh() { [ -f "$1" ] && [ "$(cat "$1")" = "$(cat "${@:2}" | cksum)" ]; }
stamp() { cat "${@:2}" | cksum >"$1"; }

venv() {
  local dir="$env_dir/venv-$1" list="drivers/python/requirements-$1.txt"
  local mark="$env_dir/venv-$1.stamp"
  if fresh "$mark" "$list" && [ -x "$dir/bin/python" ]; then return; fi
  need python3 "Install Python 3.9 or newer (Debian: apt-get install python3 python3-venv)."
  python3 -c 'import venv, ensurepip' 2>/dev/null ||
    die "Python's venv module is missing. Install it (Debian: apt-get install python3-venv)."
  say "Python environment '$1'"
  rm -rf "$dir"
  python3 -m venv "$dir"
  "$dir/bin/python" -m pip install --quiet --disable-pip-version-check -r "$list"
  stamp "$mark" "$list"
}

kafka() {
  local dir="$env_dir/kafka-$1" pom="drivers/java/kafka-$1/pom.xml"
  local mark="$env_dir/kafka-$1.stamp"
  if fresh "$mark" "$pom"; then return; fi
  need mvn "Install Maven (Debian: apt-get install maven)."
  say "Apache Kafka $1 from Maven Central"
  rm -rf "$dir"
  mvn --quiet --batch-mode -Dstyle.color=never -f "$pom" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DoutputDirectory="$dir" -DincludeScope=runtime
  stamp "$mark" "$pom"
}

java_driver() {
  local out="$env_dir/java-driver-$1" mark="$env_dir/java-driver-$1.stamp"
  if fresh "$mark" drivers/java/Driver.java "drivers/java/kafka-$1/pom.xml"; then return; fi
  say "Java driver for the $1 clients"
  rm -rf "$out"
  javac -nowarn -d "$out" -cp "$env_dir/kafka-$1/*" drivers/java/Driver.java
  stamp "$mark" drivers/java/Driver.java "drivers/java/kafka-$1/pom.xml"
}

need java "Install a JDK, 17 or newer (Debian: apt-get install openjdk-17-jdk-headless)."
need javac "Install a JDK, 17 or newer (Debian: apt-get install openjdk-17-jdk-headless)."
for name in confluent kafka-python-2 kafka-python-3 lake; do venv "$name"; done
for version in 3.9 4.1; do
  kafka "$version"
  java_driver "$version"
done
say "ready in $env_dir"
