# Shared by quickstart, test, check and container-build.sh; sourced, with bash.
# shellcheck shell=bash

lorry_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# What the build needs beside a Swift toolchain. libsqlite3-dev is GRDB's, the rest Lorry's own.
lorry_build_packages=(
  libopenblas-dev libnghttp2-dev zlib1g-dev libpcre2-dev libxxhash-dev libsqlite3-dev
  pkg-config curl
)
# What the built program needs.
# shellcheck disable=SC2034 # used by container-build.sh
lorry_runtime_packages=(
  libopenblas0-pthread libnghttp2-14 zlib1g libpcre2-8-0 libxxhash0 libsqlite3-0
  libstdc++6
)
lorry_swift_minimum=6.2
lorry_build_flags=(-c release --explicit-target-dependency-import-check error)

section() {
  printf '\n==> %s\n' "$*"
}

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "this needs root, and sudo is not installed: $*"
  fi
}

is_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Installs those of the named Debian packages that are missing.
ensure_packages() {
  command -v dpkg-query >/dev/null ||
    fail "not a Debian system; install the equivalents of: $*"
  local package missing=()
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  if [ ${#missing[@]} -eq 0 ]; then
    echo "all there: $*"
    return
  fi
  echo "installing: ${missing[*]}"
  local install=(
    env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends
    "${missing[@]}"
  )
  # The package lists of a fresh machine are empty or old.
  as_root apt-get update -q
  as_root "${install[@]}"
}

check_swift() {
  command -v swift >/dev/null ||
    fail "no swift in PATH; install Swift $lorry_swift_minimum or later from https://swift.org/install"
  local version lowest
  version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9.]*\).*/\1/p' | head -n 1)
  [ -n "$version" ] || fail "swift --version did not tell a version"
  lowest=$(printf '%s\n%s\n' "$lorry_swift_minimum" "$version" | sort -V | head -n 1)
  [ "$lowest" = "$lorry_swift_minimum" ] ||
    fail "Swift $version is too old; $lorry_swift_minimum or later is needed"
  echo "Swift $version"
}

# Runs a build or test command in the checkout, shows its output and keeps it in .build/NAME.log.
# Fails when the command does, or when it warned about one of our own files.
run_logged() {
  local name=$1 log=$lorry_root/.build/$1.log
  shift
  mkdir -p "$lorry_root/.build"
  (cd "$lorry_root" && "$@") 2>&1 | tee "$log" || fail "failed: $*"
  if grep -E "^($lorry_root/)?(Sources|Tests|Package\.swift)[^ ]*: warning:" "$log"; then
    fail "the warnings above are in our own code"
  fi
  echo "$name: done"
}

set_up() {
  section "Debian packages"
  ensure_packages "${lorry_build_packages[@]}"
  section "Swift toolchain"
  check_swift
}

build_lorry() {
  section "Build (a first one takes several minutes)"
  run_logged build swift build "${lorry_build_flags[@]}" -j "$(nproc)"
}
