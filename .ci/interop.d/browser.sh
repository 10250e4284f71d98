# A page in Chromium opens the WebSocket: the Python client speaks through it, session, cut and JOIN. Sourced by
# .ci/interop.

browser() {
  local chromium own foreign
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
}

browser
