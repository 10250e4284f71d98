# Proxies that lead a client to its server: tinyproxy and squid by HTTP CONNECT, the second also inside TLS, microsocks by
# SOCKS5. Sourced by .ci/interop
# behind fronts.sh, whose functions it uses.

# Everything goes through, by name and by the environment; without the password nothing does.
leads() { # title, proxy with @ in front of its address
  local title=$1 with=${2/@/me:secret@} without=${2/@/} scheme options line
  local through=(${PROXY_CA:+--proxy-ca "$PROXY_CA"})
  for scheme in tcp tls ws wss http https; do
    options=(--proxy "$with" "${through[@]}")
    case $scheme in tls | wss | https) options+=(--ca "$certificates/ca.pem") ;; esac
    carries "$title" "$scheme://127.0.0.1:$port" "${options[@]}"
  done
  [ "$(ALL_PROXY=$with "$built/sheetbend" call "tcp://localhost:$port" echo --data hello "${through[@]}")" = hello ]
  if line=$("$built/sheetbend" call "tcp://127.0.0.1:$port" echo --proxy "$without" "${through[@]}" 2>&1); then
    echo "$title: it leads those without a password, too"
    return 1
  fi
  grep -q 'wants a user and a password' <<<"$line"
  line=$("$built/sheetbend" call "tcp://127.0.0.1:$port" echo --proxy "${2/@/me:wrong@}" "${through[@]}" 2>&1) || true
  # tinyproxy says 401 then, which is another server's word.
  grep -q 'the proxy refuses the user or the password\|wants a user and a password\|401' <<<"$line"
}

# squid-openssl has a port of its own inside TLS.
squid_leads() {
  local plain inside helper=/usr/lib/squid/basic_ncsa_auth
  if ! installed squid squid-openssl || ! installed openssl openssl; then
    echo 'squid: skipped, it cannot be installed'
    return
  fi
  read -r plain inside <<<"$(free_ports 2)"
  mkdir -p "$scratch/squid"
  printf 'me:%s\n' "$(openssl passwd -apr1 secret)" >"$scratch/squid/users"
  cat >"$scratch/squid/conf" <<CONF
http_port 127.0.0.1:$plain
https_port 127.0.0.1:$inside tls-cert=$scratch/squid/both.pem generate-host-certificates=off
auth_param basic program $helper $scratch/squid/users
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
cache deny all
cache_log $scratch/squid/log
access_log stdio:$scratch/squid/asked
pid_filename $scratch/squid/pid
coredump_dir $scratch/squid
shutdown_lifetime 1 seconds
CONF
  cat "$certificates/server.pem" "$certificates/server.key" >"$scratch/squid/both.pem"
  # It gives its rights up, and asks for as many files as it may have.
  chmod 711 "$scratch"
  chown -R proxy: "$scratch/squid" 2>/dev/null || true
  fronting "$plain $inside" bash -c 'ulimit -n 4096; exec squid -N -f "$0"' "$scratch/squid/conf"
  leads 'squid' "http://@127.0.0.1:$plain"
  grep -q "CONNECT 127.0.0.1:$port" "$scratch/squid/asked"
  PROXY_CA=$certificates/ca.pem leads 'squid inside TLS' "https://@127.0.0.1:$inside"
  stop_relay
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
  squid_leads
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
