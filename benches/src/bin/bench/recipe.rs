//! How each proxy is told to do the job: what its own makers recommend for connections that are kept, nothing written for each request.
//! `benches/README.md` argues for each.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::job::host;
use crate::peer::{ADMIN, CANARY, Command, PRIMARY, Place};

/// A cookie among others, as a pattern for all of them.
pub(crate) const COOKIE: &str = "(.*; )?canary=always(;.*)?";

fn write(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path.display().to_string())
}

fn command(program: &str, arguments: &[&str]) -> Command {
    (program.to_owned(), arguments.iter().map(|argument| (*argument).to_owned()).collect())
}

/// `split_clients` and maps, connections to the backends kept (nginx, "Module ngx_http_upstream_module", keepalive). With more routes
/// than one, a server for each host.
pub(crate) fn nginx(place: &Place<'_>) -> Result<Command> {
    let Place { listen, threads, entry, folder } = place;
    let root = folder.display();
    let mut servers = String::new();
    for number in 0..entry.routes {
        let name = host(number);
        write!(
            servers,
            "  server {{ listen {listen}; server_name {name}; location / {{
    proxy_pass http://$group; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; }} }}\n",
        )?;
    }
    let text = format!(
        "worker_processes {threads}; daemon off; pid {root}/nginx.pid; error_log stderr;
events {{ worker_connections 20000; }}
http {{
  access_log off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 300s;
  proxy_buffer_size 16k; proxy_buffers 16 32k; proxy_busy_buffers_size 128k; proxy_max_temp_file_size 0;
  client_body_temp_path {root}/nginx-body; proxy_temp_path {root}/nginx-proxy; client_max_body_size 10m;
  server_names_hash_max_size 65536; server_names_hash_bucket_size 128;
  split_clients \"$connection-$connection_requests\" $drawn {{ 10% canary; * primary; }}
  map $http_x_canary $by_header {{ always canary; default $drawn; }}
  map $cookie_canary $group {{ always canary; default $by_header; }}
  upstream primary {{ server {PRIMARY}; keepalive 256; keepalive_requests 1000000000; }}
  upstream canary {{ server {CANARY}; keepalive 256; keepalive_requests 1000000000; }}
{servers}}}
",
    );
    let conf = write(folder, "nginx.conf", &text)?;
    Ok(command("nginx", &["-c", &conf]))
}

/// `rand` and ACLs, connections to the backends shared (HAProxy manual, "http-reuse"). With more routes than one, a map of hosts.
pub(crate) fn haproxy(place: &Place<'_>) -> Result<Command> {
    let Place { listen, threads, entry, folder } = place;
    let primary = if entry.routes == 1 {
        "default_backend primary".to_owned()
    } else {
        let map: String = (0..entry.routes).map(|number| format!("{} primary\n", host(number))).collect();
        format!("use_backend %[req.hdr(host),lower,map_str({})]", write(folder, "haproxy.map", &map)?)
    };
    let text = format!(
        "global
  nbthread {threads}
  maxconn 12000
  no strict-limits
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 60s
  http-reuse always
frontend edge
  bind {listen}
  acl header req.hdr(x-canary) -m str always
  acl cookie req.cook(canary) -m str always
  acl drawn rand(100) lt 10
  use_backend canary if header
  use_backend canary if cookie
  use_backend canary if drawn
  {primary}
backend primary
  server one {PRIMARY}
backend canary
  server one {CANARY}
",
    );
    let conf = write(folder, "haproxy.cfg", &text)?;
    Ok(command("haproxy", &["-db", "-f", &conf]))
}

/// The same by flags: it measures, judges, and would take the canary out.
pub(crate) fn serin(place: &Place<'_>) -> Result<Command> {
    let Place { listen, threads, .. } = place;
    let program = std::env::current_exe()?.with_file_name("serin");
    let program = program.to_str().context("the path of a program is not text")?.to_owned();
    let arguments = [
        "run".to_owned(),
        format!("--listen={listen}"),
        format!("--admin={ADMIN}"),
        format!("--primary={PRIMARY}"),
        format!("--canary={CANARY}"),
        "--weight=10".to_owned(),
        "--header=x-canary=always".to_owned(),
        format!("--cookie={COOKIE}"),
        format!("--threads={}", threads),
    ];
    Ok((program, arguments.into()))
}

fn ourselves(arguments: &[String]) -> Result<Command> {
    let program = std::env::current_exe()?;
    let program = program.to_str().context("the path of a program is not text")?.to_owned();
    Ok((program, arguments.into()))
}

/// The floor.
pub(crate) fn relay(place: &Place<'_>) -> Result<Command> {
    let Place { listen, .. } = place;
    ourselves(&["relay".to_owned(), listen.to_string(), PRIMARY.to_string()])
}

/// Serin's edge without the loop, with as many routes and as many swaps as wanted.
pub(crate) fn edge(place: &Place<'_>) -> Result<Command> {
    let Place { listen, entry, .. } = place;
    ourselves(&["edge".to_owned(), listen.to_string(), entry.routes.to_string(), entry.swaps.to_string()])
}

/// Weighted clusters after a header and a cookie match, without request ids and Envoy's own header fields.
pub(crate) fn envoy(place: &Place<'_>) -> Result<Command> {
    let Place { listen, folder, .. } = place;
    let cluster = |name: &str, address: std::net::SocketAddr| {
        format!(
            "  - name: {name}
    connect_timeout: 1s
    type: STATIC
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address:
      {{address: {ip}, port_value: {port}}}}}}}}}]}}]}}\n",
            ip = address.ip(),
            port = address.port(),
        )
    };
    let text = format!(
        "static_resources:
  listeners:
  - address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          generate_request_id: false
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router,
              suppress_envoy_headers: true}}
          route_config:
            virtual_hosts:
            - name: shop
              domains: [\"*\"]
              routes:
              - match: {{prefix: /, headers: [{{name: x-canary, string_match: {{exact: always}}}}]}}
                route: {{cluster: canary}}
              - match: {{prefix: /, headers: [{{name: cookie, string_match: {{safe_regex: {{regex: \"{COOKIE}\"}}}}}}]}}
                route: {{cluster: canary}}
              - match: {{prefix: /}}
                route: {{weighted_clusters: {{clusters: [{{name: primary, weight: 90}}, {{name: canary, weight: 10}}]}}}}
  clusters:
{primary}{canary}",
        ip = listen.ip(),
        port = listen.port(),
        primary = cluster("primary", PRIMARY),
        canary = cluster("canary", CANARY),
    );
    let conf = write(folder, "envoy.yaml", &text)?;
    Ok(command("envoy", &["-c", &conf, "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]))
}

/// A weighted service after two routers that match a header and a cookie; one processor.
pub(crate) fn traefik(place: &Place<'_>) -> Result<Command> {
    let Place { listen, folder, .. } = place;
    let text = format!(
        "http:
  routers:
    header: {{rule: 'PathPrefix(`/`) && Header(`X-Canary`, `always`)', service: canary, priority: 30}}
    cookie: {{rule: 'PathPrefix(`/`) && HeaderRegexp(`Cookie`, `(^|; )canary=always(;|$)`)', service: canary, priority: 20}}
    others: {{rule: 'PathPrefix(`/`)', service: split, priority: 10}}
  services:
    split: {{weighted: {{services: [{{name: primary, weight: 90}}, {{name: canary, weight: 10}}]}}}}
    primary: {{loadBalancer: {{servers: [{{url: 'http://{PRIMARY}'}}]}}}}
    canary: {{loadBalancer: {{servers: [{{url: 'http://{CANARY}'}}]}}}}
"
    );
    let dynamic = write(folder, "traefik.yaml", &text)?;
    Ok(command(
        "env",
        &[
            "GOMAXPROCS=1",
            "traefik",
            &format!("--entrypoints.web.address={listen}"),
            &format!("--providers.file.filename={dynamic}"),
            "--serverstransport.maxidleconnsperhost=256",
            "--global.checknewversion=false",
            "--log.level=ERROR",
        ],
    ))
}

/// Two matchers, then weighted round robin; one processor.
pub(crate) fn caddy(place: &Place<'_>) -> Result<Command> {
    let Place { listen, folder, .. } = place;
    let text = format!(
        "{{
  admin off
  auto_https off
  persist_config off
  log {{
    level ERROR
  }}
}}
http://:{port} {{
  bind {ip}
  @header header X-Canary always
  @cookie header_regexp Cookie (^|;\\s)canary=always(;|$)
  reverse_proxy @header {CANARY}
  reverse_proxy @cookie {CANARY}
  reverse_proxy {PRIMARY} {CANARY} {{
    lb_policy weighted_round_robin 90 10
    transport http {{
      keepalive_idle_conns_per_host 256
    }}
  }}
}}
",
        ip = listen.ip(),
        port = listen.port(),
    );
    let conf = write(folder, "Caddyfile", &text)?;
    let home = format!("HOME={}", folder.display());
    Ok(command("env", &["GOMAXPROCS=1", &home, "caddy", "run", "--adapter", "caddyfile", "--config", &conf]))
}
