# Proxies that lead a client to its server: tinyproxy by HTTP CONNECT, microsocks by SOCKS5. Sourced by .ci/interop
# behind fronts.sh, whose functions it uses.

# Everything goes through, by name and by the environment; without the password nothing does.
leads() { # title, proxy with @ in front of its address
  local title=$1 with=${2/@/me:secret@} without=${2/@/} scheme options line
  for scheme in tcp tls ws wss; do
    options=(--proxy "$with")
    case $scheme in tls | wss) options+=(--ca "$certificates/ca.pem") ;; esac
    carries "$title" "$scheme://127.0.0.1:$port" "${options[@]}"
  done
  [ "$(ALL_PROXY=$with "$built/sheetbend" call "tcp://localhost:$port" echo --data hello)" = hello ]
  if line=$("$built/sheetbend" call "tcp://127.0.0.1:$port" echo --proxy "$without" 2>&1); then
    echo "$title: it leads those without a password, too"
    return 1
  fi
  grep -q 'wants a user and a password' <<<"$line"
  line=$("$built/sheetbend" call "tcp://127.0.0.1:$port" echo --proxy "${2/@/me:wrong@}" 2>&1) || true
  # tinyproxy says 401 then, which is another server's word.
  grep -q 'the proxy refuses the user or the password\|wants a user and a password\|401' <<<"$line"
}

proxies() {
  local at
  at=$(free_ports 1)
  serving 'the server behind forward proxies' "${tls[@]}"
  if installed tinyproxy tinyproxy; then
    cat >"$scratch/tinyproxy" <<CONF
Port $at
Listen 127.0.0.1
Timeout 60
MaxClients 50
Allow 127.0.0.1
BasicAuth me secret
LogLevel Connect
CONF
    fronting "$at" tinyproxy -d -c "$scratch/tinyproxy"
    leads 'tinyproxy' "http://@127.0.0.1:$at"
    grep -q "CONNECT 127.0.0.1:$port" "$scratch/relay"
    stop_relay
  else
    echo 'tinyproxy: skipped, it cannot be installed'
  fi
  at=$(free_ports 1)
  if installed microsocks microsocks; then
    fronting "$at" microsocks -i 127.0.0.1 -p "$at" -u me -P secret
    leads 'microsocks, which resolves names' "socks5h://@127.0.0.1:$at"
    leads 'microsocks, which is told addresses' "socks5://@127.0.0.1:$at"
    grep -q "connected to 127.0.0.1:$port" "$scratch/relay"
    stop_relay
  else
    echo 'microsocks: skipped, it cannot be installed'
  fi
  stop_server
}

proxies
