#!/usr/bin/env bash
# Makes this checkout ready for one purpose: bootstrap.sh setup|demo|test|bench|check|corpus
#
#   setup   the coral command in .venv                     (python3 python3-venv libbpf1)
#   demo    setup, and the toolchains of the examples      (gcc libc6-dev; Go as a wheel)
#   test    demo, the test tools, the servers of the tests (g++ clang rustc binutils nginx redis-server postgresql apache2-utils)
#   bench   test, and what Coral is compared with          (bpftrace)
#   check   test, and the compiler of the BPF object       (zig as a wheel)
#   corpus  check, more linkers and more real programs     (lld mold sqlite3 git ripgrep libpython3-dev)
#
# As root on Debian it installs the missing ones of those packages and nothing else; elsewhere it says what is missing and
# what works without. Python packages come from PyPI exactly as uv.lock pins them, into .venv. A second run does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly uv_version=0.13.9
readonly purpose=${1:?usage: bootstrap.sh setup|demo|test|bench|check|corpus}
export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1 PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# Certificates: uv reads SSL_CERT_FILE, so whatever the caller gave to pip or curl counts for it too.
export SSL_CERT_FILE=${SSL_CERT_FILE:-${PIP_CERT:-${REQUESTS_CA_BUNDLE:-${CURL_CA_BUNDLE:-}}}}
[ -n "$SSL_CERT_FILE" ] || { unset SSL_CERT_FILE; export UV_SYSTEM_CERTS=1; }

case $purpose in
  setup) groups=() ;;
  demo) groups=(--group go) ;;
  test | bench) groups=(--group go --group dev) ;;
  check | corpus) groups=(--group go --group dev --group bpf) ;;
  *) die "bootstrap.sh: unknown purpose '$purpose'; one of setup, demo, test, bench, check, corpus" ;;
esac

# Prints the interpreter to build .venv with: the first that runs, is 3.11 to 3.14 and can make environments. Candidates are run,
# not looked up, because a shim on PATH (pyenv) may stand for an interpreter that is not there; what it prints is the real one.
find_python() {
  local candidate
  for candidate in .venv/bin/python python3.13 python3.12 python3.11 python3.14 python3 python /usr/bin/python3; do
    "$candidate" - 2>/dev/null <<'PYTHON' && return 0
import ensurepip, ssl, sys, venv
if not (3, 11) <= sys.version_info < (3, 15):
    sys.exit(1)
print(getattr(sys, "_base_executable", None) or sys.executable)
PYTHON
  done
  return 1
}

have() {
  case $1 in
    python) python=$(find_python) ;;
    libbpf) PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -q 'libbpf\.so\.1 ' ;;
    compiler) command -v gcc >/dev/null && [ -e /usr/include/stdio.h ] ;;
    rustc) PATH=$PATH:~/.cargo/bin command -v rustc >/dev/null ;;
    libpython) compgen -G '/usr/lib/x86_64-linux-gnu/libpython3.*.so.1.0' >/dev/null ;;
    postgresql) compgen -G '/usr/lib/postgresql/*/bin/pgbench' >/dev/null ;;
    *) PATH=$PATH:/sbin:/usr/sbin command -v "$1" >/dev/null ;;
  esac
}

# What the purpose needs of the system: what to look for, the Debian packages that bring it, what does not work without it.
requirements() {
  echo "python|python3 python3-venv|nothing works: Coral runs on Python 3.11 to 3.14 with venv and ensurepip"
  echo "libbpf|libbpf1|no probe can be attached on this host; the colony, the command line and the unit tests work"
  [ "$purpose" = setup ] && return
  echo "compiler|gcc libc6-dev|the C example and the test programs cannot be built"
  [ "$purpose" = demo ] && return
  echo "g++|g++|the C++ test programs cannot be built"
  echo "clang++|clang|the tests of programs that clang compiled cannot run"
  echo "rustc|rustc|the Rust test programs cannot be built"
  echo "objdump|binutils|the tests that compare with objdump cannot run"
  echo "musl-gcc|musl-tools|the tests on programs of musl cannot run"
  echo "gdb|gdb-minimal|the tests on programs under a debugger cannot run"
  echo "systemd-analyze|systemd|the systemd units are not checked"
  echo "strace|strace|the tests on programs under a tracer cannot run"
  echo "nginx|nginx|the tests on nginx cannot run"
  echo "redis-server|redis-server|the tests on Redis cannot run"
  echo "postgresql|postgresql|the tests on PostgreSQL cannot run"
  echo "ab|apache2-utils|the tests on nginx cannot run"
  [ "$purpose" = bench ] && echo "bpftrace|bpftrace|Coral is not compared with it"
  [ "$purpose" != corpus ] && return
  echo "ld.lld|lld|images of this linker are missing from the corpus"
  echo "mold|mold|images of this linker are missing from the corpus"
  echo "sqlite3|sqlite3|it is missing from the corpus"
  echo "git|git|it is missing from the corpus"
  echo "rg|ripgrep|it is missing from the corpus"
  echo "libpython|libpython3-dev|it is missing from the corpus"
}

missing() {
  local name packages without
  while IFS='|' read -r name packages without; do
    have "$name" || printf '%s|%s|%s\n' "$name" "$packages" "$without"
  done < <(requirements)
}

# Installs Debian packages without letting their scripts start a daemon, now or at the next boot.
install() {
  local guard=/usr/sbin/policy-rc.d kept='' unit
  if [ -e $guard ]; then kept=$(mktemp -u $guard.XXXXXX); mv $guard "$kept"; fi
  # shellcheck disable=SC2064 # expanded now: the names are local
  trap "rm -f $guard; [ -z '$kept' ] || mv '$kept' $guard" EXIT
  printf '#!/bin/sh\nexit 101\n' >$guard
  chmod 755 $guard
  say "Installing with apt-get: $*"
  export DEBIAN_FRONTEND=noninteractive
  local options=(-qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0) log=.bootstrap/apt.log
  {
    apt-get "${options[@]}" update && apt-get "${options[@]}" install -y --no-install-recommends "$@"
  } </dev/null >$log 2>&1 || { tail -n 20 $log >&2; return 1; }
  if command -v systemctl >/dev/null; then
    for unit in "$@"; do
      case $unit in nginx | redis-server | postgresql) systemctl -q disable "$unit" >&2 || say "$unit stays enabled at boot." ;; esac
    done
  fi
}

mkdir -p .bootstrap

# What is missing of the system
lines=$(missing)
if [ -n "$lines" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  # shellcheck disable=SC2046 # a list of package names
  (install $(cut -d'|' -f2 <<<"$lines")) || say "apt-get failed, as said above."
  lines=$(missing)
fi
if [ -n "$lines" ]; then
  say "Missing on this host (as root, with apt-get, this would have been installed):"
  while IFS='|' read -r name packages without; do say "  $name: apt-get install $packages   Without it $without."; done <<<"$lines"
  grep -q '^python|' <<<"$lines" && exit 1
  [ "$purpose" = demo ] && die "The demo needs all of them."
fi
python=$(find_python)

# The Python environment: stamped with what it was made from
stamp=.bootstrap/$purpose.stamp
inputs=$(cat uv.lock pyproject.toml scripts/bootstrap.sh | sha256sum | cut -d' ' -f1)-$python
if [ -x .venv/bin/coral ] && [ -e .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$inputs" ]; then exit 0; fi
exec 9>.bootstrap/lock
flock 9 # two make runs in one checkout take turns
unreachable() {
  say "" "PyPI could not be used: see above. It is needed once, and again when uv.lock changes; a proxy or a company certificate" \
    "is given by https_proxy and SSL_CERT_FILE. Until then only what .venv already holds works."
  exit 1
}
if [ "$(.bootstrap/venv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != $uv_version ]; then
  say "Fetching uv $uv_version from PyPI"
  rm -rf .bootstrap/venv
  "$python" -m venv .bootstrap/venv
  .bootstrap/venv/bin/python -m pip install -q --only-binary :all: "uv==$uv_version" >&2 || unreachable
fi
say "Setting up .venv for '$purpose' with $python"
# --inexact: what another purpose installed stays. Byte code is made here and now: where PYTHONDONTWRITEBYTECODE is set, as in many
# container images, each start of a daemon would else compile a thousand modules, which is most of what a start costs.
.bootstrap/venv/bin/uv sync -q --frozen --inexact --compile-bytecode --no-default-groups "${groups[@]}" --python "$python" >&2 || unreachable
.venv/bin/python -m compileall -q src
# Each purpose holds those before it.
order=(setup demo test check corpus)
[ "$purpose" != bench ] || order=(setup demo test bench)
for covered in "${order[@]}"; do
  echo "$inputs" >".bootstrap/$covered.stamp"
  [ "$covered" != "$purpose" ] || break
done
