# A page in Chromium opens the WebSocket: the Python client speaks through it, session, cut and JOIN. And an
# EventSource of such a page reads the downlink for it, is cut, and goes on. Sourced by .ci/interop.

browser() {
  local chromium own foreign address
  if ! installed chromium chromium; then
    echo 'Chromium: skipped, it cannot be installed'
    return
  fi
  chromium=$(command -v chromium)
  if ! npm install --prefix "$scratch" --silent --no-audit --no-fund playwright-core >/dev/null; then
    echo 'Chromium: skipped, playwright-core cannot be installed'
    return
  fi
  read -r own foreign <<<"$(free_ports 2)"
  local page="node $PWD/.ci/browser.mjs $chromium"
  local serving=("${serve[@]}" --allow-origin "http://localhost:$own")
  scheme=ws through="$page $own" against 'Python client, a page in Chromium' "${serving[@]}"
  # The page of another site does not get in.
  scheme=ws through="$page $foreign" against 'a foreign page' "${serving[@]}" >"$scratch/foreign" 2>&1 || true
  stop_relay
  stop_server
  grep -q 'the page cannot open it' "$scratch/relay"
  ! grep -q '^session' "$scratch/client"
  echo 'a foreign page in Chromium: kept out'

  serving 'the server behind an EventSource' --allow-origin "http://localhost:$own"
  : >"$scratch/relay"
  (cd "$scratch" && exec node "$OLDPWD/.ci/events.mjs" serve "$chromium" "$own" "127.0.0.1:$port") \
    >"$scratch/relay" 2>&1 &
  relay=$!
  await_address "$relay" "$scratch/relay" 'an EventSource in Chromium'
  SHEETBEND_DOWNLINK="node .ci/events.mjs ask $address" timeout 60 \
    "$python" docs/examples/python/sheetbend_client.py "http://127.0.0.1:$port/?mode=sse" >"$scratch/client" 2>&1
  same_as_ever
  grep -q 'an EventSource goes on behind [0-9]' "$scratch/relay"
  stop_relay
  stop_server
  echo 'Python client over HTTP, sse read by an EventSource in Chromium that is cut: passed'
}

browser
