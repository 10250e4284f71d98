# What stands in front of a server: nginx and HAProxy, with the settings of docs/guides/reverse-proxies.md as they are
# printed there. Sourced by .ci/interop.

guide() { # block, OLD=NEW...
  python3 .ci/guide.py docs/guides/reverse-proxies.md "$@"
}

# Starts the server and sets `port` to its port.
serving() { # title, arguments...
  local title=$1 address=''
  shift
  rm -rf "$scratch/store"
  : >"$scratch/server"
  "$built/sheetbend" serve --listen 127.0.0.1:0 --store "$scratch/store" "$@" >"$scratch/server" 2>&1 &
  server=$!
  await_address "$server" "$scratch/server" "$title"
  port=${address##*:}
}

# Starts what stands in front, which is to take connections at all of the ports.
fronting() { # ports, command...
  local ports=$1 one tries
  shift
  "$@" >"$scratch/relay" 2>&1 &
  relay=$!
  for one in $ports; do
    for tries in {1..100}; do
      if (exec 3<>"/dev/tcp/127.0.0.1/$one") 2>/dev/null; then continue 2; fi
      kill -0 "$relay" 2>/dev/null || break
      sleep 0.1
    done
    cat "$scratch/relay"
    return 1
  done
}

# A call and a file go through.
carries() { # title, URL, options...
  local title=$1 url=$2
  shift 2
  [ "$("$built/sheetbend" call "$url" echo --data hello "$@")" = hello ]
  rm -f "$scratch/store/file"
  "$built/sheetbend" send --quiet "$scratch/file" "$url" "$@" >"$scratch/client" 2>&1
  cmp "$scratch/file" "$scratch/store/file"
  echo "$title, ${url%%:*}: passed"
}

fronts() {
  local bytes web title kind flags listen
  read -r bytes web <<<"$(free_ports 2)"
  local ca=(--ca "$certificates/ca.pem")
  cat "$certificates/server.pem" "$certificates/server.key" >"$scratch/both.pem"
  head -c 20000000 /dev/urandom >"$scratch/file"
  mkdir -p "$scratch/nginx"
  local always="daemon off; master_process off; pid $scratch/nginx/pid; error_log stderr;"
  local module=/usr/lib/nginx/modules/ngx_stream_module.so

  if installed nginx nginx-light && installed haproxy haproxy; then
    serving 'the server behind proxies that pass bytes on' "${tls[@]}"
    # Built in, or a module of its own.
    [ -e "$module" ] || install_package libnginx-mod-stream || true
    {
      [ ! -e "$module" ] || echo "load_module $module;"
      echo 'events {}'
      guide 'nginx stream' "listen 4443=listen 127.0.0.1:$bytes" "127.0.0.1:4433=127.0.0.1:$port"
    } >"$scratch/nginx/stream.conf"
    fronting "$bytes" nginx -p "$scratch/nginx" -c "$scratch/nginx/stream.conf" -g "$always"
    title='nginx passes bytes on'
    carries "$title" "tcp://127.0.0.1:$bytes"
    carries "$title" "tls://127.0.0.1:$bytes" "${ca[@]}"
    carries "$title" "ws://127.0.0.1:$bytes/"
    carries "$title" "wss://127.0.0.1:$bytes/" "${ca[@]}"
    carries "$title" "sheetbend://127.0.0.1:$bytes" "${ca[@]}"
    stop_relay
    guide 'haproxy tcp' "bind :4443=bind 127.0.0.1:$bytes" "127.0.0.1:4433=127.0.0.1:$port" >"$scratch/haproxy"
    fronting "$bytes" haproxy -db -f "$scratch/haproxy"
    title='HAProxy passes bytes on'
    carries "$title" "tcp://127.0.0.1:$bytes"
    carries "$title" "tls://127.0.0.1:$bytes" "${ca[@]}"
    carries "$title" "ws://127.0.0.1:$bytes/"
    carries "$title" "wss://127.0.0.1:$bytes/" "${ca[@]}"
    carries "$title" "sheetbend://127.0.0.1:$bytes" "${ca[@]}"
    stop_relay
    stop_server

    # A server that is told of a proxy which ends TLS, and one that is not: the same settings but for TLS.
    for kind in wss ws; do
      flags=()
      listen="127.0.0.1:$web"
      case $kind in wss) flags=(--behind-tls-proxy) listen+=' ssl' ;; esac
      serving 'the server behind proxies that speak HTTP' "${flags[@]}"
      {
        echo 'events {}'
        guide 'nginx http' "listen 443 ssl=listen $listen" "127.0.0.1:4433=127.0.0.1:$port" \
          "/etc/ssl/server.pem=$certificates/server.pem" "/etc/ssl/server.key=$certificates/server.key"
      } >"$scratch/nginx/http.conf"
      fronting "$web" nginx -p "$scratch/nginx" -c "$scratch/nginx/http.conf" -g "$always"
      over_http 'nginx speaks HTTP' "$kind"
      stop_relay
      case $kind in
        wss) guide 'haproxy http' "bind :443=bind 127.0.0.1:$web" "127.0.0.1:4433=127.0.0.1:$port" \
          "/etc/ssl/server-and-key.pem=$scratch/both.pem" ;;
        ws) guide 'haproxy http' "127.0.0.1:4433=127.0.0.1:$port" |
          sed "s/bind :443 .*/bind 127.0.0.1:$web/" ;;
      esac >"$scratch/haproxy"
      fronting "$web" haproxy -db -f "$scratch/haproxy"
      over_http 'HAProxy speaks HTTP' "$kind"
      stop_relay
      stop_server
    done
    holding_back
  else
    echo 'nginx and HAProxy: skipped, they cannot be installed'
  fi
}

# What goes through a proxy that speaks HTTP, at the port `web`, with TLS (wss) or without: a WebSocket, and exchanges
# with each form of the downlink and with that which the client finds.
over_http() { # title, ws or wss
  local at=127.0.0.1:$web/sheetbend mode scheme=http options=()
  if [ "$2" = wss ]; then
    scheme=https options=("${ca[@]}" --through-tls-proxy)
  fi
  carries "$1" "$2://$at" "${options[@]}"
  carries "$1" "$scheme://$at" "${options[@]}"
  for mode in binary sse ndjson poll; do
    carries "$1, $mode" "$scheme://$at?mode=$mode" "${options[@]}"
  done
}

# An nginx that passes on what is whole, whatever it is told: the client finds out, and polls.
holding_back() {
  local title='nginx holds responses back'
  serving "the server behind a proxy that holds back"
  {
    echo 'events {}'
    guide 'nginx http' "listen 443 ssl=listen 127.0.0.1:$web" "127.0.0.1:4433=127.0.0.1:$port" \
      "/etc/ssl/server.pem=$certificates/server.pem" "/etc/ssl/server.key=$certificates/server.key" |
      sed -e 's/proxy_buffering off/proxy_buffering on; proxy_ignore_headers X-Accel-Buffering/' \
        -e 's/proxy_request_buffering off/proxy_request_buffering on/'
  } >"$scratch/nginx/holding.conf"
  fronting "$web" nginx -p "$scratch/nginx" -c "$scratch/nginx/holding.conf" -g "$always"
  carries "$title" "http://127.0.0.1:$web/sheetbend"
  stop_relay
  stop_server
}

fronts
