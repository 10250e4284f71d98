# QUIC and WebTransport of others: the Python client over aioquic on QUIC and as a WebTransport client, our client at a
# WebTransport server of aioquic, and a page in Chromium. Sourced by .ci/interop behind fronts.sh, whose functions it uses.

# A page in Chromium opens a session of WebTransport to a server whose certificate it knows by its hash: the Python client
# speaks through it, and gets its answers.
webtransport_page() {
  local chromium own hash
  if ! installed chromium chromium || [ ! -d "$scratch/node_modules/playwright-core" ]; then
    echo 'Chromium over WebTransport: skipped, it or playwright-core cannot be installed'
    return
  fi
  chromium=$(command -v chromium)
  own=$(free_ports 1)
  serving 'the server for WebTransport' --tls self-signed --allow-origin "http://localhost:$own"
  hash=$(sed -n 's/^browsers know the certificate by SHA-256 //p' "$scratch/server")
  : >"$scratch/relay"
  (cd "$scratch" && exec node "$relays/browser.mjs" "$chromium" "$own" "$hash" "https://127.0.0.1:$port/") \
    >"$scratch/relay" 2>&1 &
  relay=$!
  await_address "$relay" "$scratch/relay" 'a page with WebTransport'
  SHEETBEND_UNBOUND=1 timeout 60 "$python" docs/examples/python/sheetbend_client.py "lanes://$address" \
    >"$scratch/client" 2>&1
  sed -E -e 's/^session [0-9a-f]{32} /session ID /' -e 's/^(lanes in use .*:) [1-9].*/\1 N/' "$scratch/client" |
    diff <(grep -vE '^(joined|second)' "$scratch/expected-lanes") -
  stop_relay
  # The page of another site does not get in.
  (cd "$scratch" && exec node "$relays/browser.mjs" "$chromium" "$(free_ports 1)" "$hash" "https://127.0.0.1:$port/") \
    >"$scratch/relay" 2>&1 &
  relay=$!
  await_address "$relay" "$scratch/relay" 'a foreign page with WebTransport'
  ! SHEETBEND_UNBOUND=1 timeout 60 "$python" docs/examples/python/sheetbend_client.py "lanes://$address" \
    >"$scratch/client" 2>&1
  grep -q 'the page cannot open it' "$scratch/relay"
  stop_relay
  stop_server
  echo 'Python client, a page in Chromium over WebTransport: passed; a foreign page: kept out'
}

webtransport() {
  local title
  if [ ! -x "$scratch/venv/bin/pip" ] || ! "$scratch/venv/bin/pip" install --quiet aioquic; then
    echo 'aioquic: skipped, it cannot be installed'
    return
  fi
  scheme=quic expected=$scratch/expected-lanes against 'Python client, QUIC of aioquic' "${serve[@]}" "${tls[@]}"
  scheme=wt query=/ expected=$scratch/expected-lanes against 'Python client, WebTransport of aioquic' "${serve[@]}" "${tls[@]}"

  title='our client, a WebTransport server of aioquic'
  serving "$title" "${tls[@]}"
  : >"$scratch/relay"
  "$python" "$relays/webtransport.py" "$certificates/server.pem" "$certificates/server.key" "127.0.0.1:$port" \
    >"$scratch/relay" 2>&1 &
  relay=$!
  await_address "$relay" "$scratch/relay" "$title"
  # The server ends its own TLS, and this is not where the client's ends.
  carries "$title" "wt://$address/" --ca "$certificates/ca.pem" --through-tls-proxy
  grep -q "a session for $address/" "$scratch/relay"
  stop_relay
  stop_server

  webtransport_page
}

webtransport
