//! Serin's edge without the loop around it: many routes, and tables that are put in force so many times a second.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serin_measure::{Arm, BootId, CanaryKey, Coin};
use serin_proxy::{Bound, Listen, Settings};
use serin_route::{Endpoint, Force, Generation, HeaderMatch, Host, Match, Route, RouteTable, StringMatch};

use crate::job::host;
use crate::peer::{CANARY, PRIMARY};
use crate::recipe::COOKIE;

/// `bench edge LISTEN ROUTES SWAPS-A-SECOND`.
pub(crate) fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(2);
    let mut next = || arguments.next().context("edge needs an address and two numbers");
    let (listen, routes, swaps) = (next()?.parse::<SocketAddr>()?, next()?.parse()?, next()?.parse::<u32>()?);
    serin_proxy::use_small_pages();
    let settings = Settings { listen: vec![Listen::plain(listen)], threads: 1, ..Settings::default() };
    let bound = Bound::bind(settings, BootId(1))?;
    let handle = bound.handle();
    handle.publish(table(1, routes)?);
    let (_edge, _tripped) = bound.serve();
    // As the control loop does.
    serin_proxy::give_way();
    for generation in 2.. {
        if swaps == 0 {
            std::thread::park();
        } else {
            let next = table(generation, routes)?;
            std::thread::sleep(Duration::from_secs(1) / swaps);
            handle.publish(next);
        }
    }
    Ok(())
}

/// A condition that sends whoever meets it to the canary.
fn force(name: &str, value: StringMatch) -> Force {
    Force { matches: Match::on(vec![HeaderMatch::new(name, value)]), arm: Arm::Canary }
}

fn table(generation: u64, routes: u32) -> Result<RouteTable> {
    let forced = [force("x-canary", StringMatch::Exact("always".into())), force("cookie", StringMatch::regex(COOKIE)?)];
    let route = |number: u32| -> Result<Route> {
        Ok(Route {
            coin: Coin::from_percent(10.0).context("a percentage")?,
            hosts: vec![Host::parse(&host(number as usize))?],
            forced: forced.to_vec(),
            primary: vec![Endpoint { address: PRIMARY }],
            canary_endpoints: vec![Endpoint { address: CANARY }],
            ..Route::new(CanaryKey::new("default", &format!("shop-{number}")))
        })
    };
    let routes = (0..routes).map(route).collect::<Result<_>>()?;
    Ok(RouteTable::build(Generation(generation), routes)?)
}
