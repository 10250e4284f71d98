# The Autobahn test suite: every case of its against our WebSocket, both as a server and as a client, through
# core/examples/websocket_echo. What came of it is docs/CONFORMANCE.md, which must say the same. Sourced by .ci/interop.
#
# The suite needs Python 2.7, and is installed for it into a folder of this run.

autobahn() {
  local suite=$scratch/autobahn at tries
  if ! command -v python2.7 >/dev/null || ! autobahn_install "$suite" >"$scratch/client" 2>&1; then
    echo 'Autobahn: skipped, it needs Python 2.7 with pip'
    return
  fi
  local wstest=$suite/venv/bin/wstest
  cargo build --locked --quiet --package sheetbend-core --features websocket --example websocket_echo
  at=$(free_ports 1)
  local echo=$built/examples/websocket_echo
  # Sections 12 and 13 are about compression, which is not spoken.
  local cases='"cases": ["*"], "exclude-cases": ["12.*", "13.*"], "exclude-agent-cases": {}'

  : >"$scratch/server"
  "$echo" serve "127.0.0.1:$at" >"$scratch/server" 2>&1 &
  server=$!
  await_address "$server" "$scratch/server" 'the echo server'
  cat >"$suite/client.json" <<JSON
{"outdir": "$suite/server", "servers": [{"agent": "server", "url": "ws://127.0.0.1:$at"}], $cases}
JSON
  timeout 900 "$wstest" -m fuzzingclient -s "$suite/client.json" >"$scratch/client" 2>&1
  stop_server

  cat >"$suite/server.json" <<JSON
{"outdir": "$suite/client", "url": "ws://127.0.0.1:$at", $cases}
JSON
  "$wstest" -m fuzzingserver -s "$suite/server.json" >"$scratch/server" 2>&1 &
  server=$!
  for tries in {1..100}; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$at") 2>/dev/null; then break; fi
    sleep 0.1
  done
  timeout 900 "$echo" run "127.0.0.1:$at" >"$scratch/client" 2>&1
  stop_server

  python3 .ci/autobahn.py "$suite/server/index.json" "$suite/client/index.json" >"$scratch/table"
  cp "$scratch/table" "${AUTOBAHN_TABLE:-/dev/null}"
  diff docs/CONFORMANCE.md "$scratch/table"
  echo "Autobahn: passed, $(grep -c . "$scratch/client" >/dev/null && sed -n 's/.*took part in \([0-9]*\) cases.*/\1/p' "$scratch/client") cases with each end"
}

autobahn_install() { # folder
  # pyenv, where it is the one who has Python 2.7.
  if command -v pyenv >/dev/null && [ -z "${PYENV_VERSION:-}" ]; then
    PYENV_VERSION=$(pyenv versions --bare | grep '^2\.7' | tail -n 1)
    export PYENV_VERSION
  fi
  python2.7 -m pip install --quiet --target "$1/boot" virtualenv &&
    PYTHONPATH=$1/boot python2.7 -m virtualenv --quiet "$1/venv" &&
    "$1/venv/bin/pip" install --quiet autobahntestsuite
  local status=$?
  unset PYENV_VERSION
  return "$status"
}

autobahn
