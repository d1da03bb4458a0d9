//! `serin get`: how rollouts stand, once or for as long as one looks.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serin_runtime::admin::rollouts::RolloutList;
use tokio::time::sleep;

use crate::arguments::{GetArguments, Output};
use crate::client::{Client, runtime};
use crate::paint::say;
use crate::tree::{Look, line, tree};

/// Time between two looks while watching.
const PERIOD: Duration = Duration::from_millis(500);

pub(crate) fn get(arguments: &GetArguments) -> Result<ExitCode> {
    runtime()?.block_on(async {
        let client = Client::new(arguments.admin)?;
        if arguments.watch { watch(&client, arguments).await } else { once(&client, arguments).await }
    })
}

async fn ask(client: &Client, arguments: &GetArguments) -> Result<RolloutList> {
    match &arguments.name {
        Some(name) => {
            let rollouts = vec![client.one(&arguments.namespace, name).await?];
            Ok(RolloutList { rollouts, refused_config: Vec::new() })
        }
        None => client.all().await,
    }
}

async fn once(client: &Client, arguments: &GetArguments) -> Result<ExitCode> {
    let list = ask(client, arguments).await?;
    say(&match arguments.output {
        Output::Json => serde_json::to_string_pretty(&list).context("the answer cannot be printed")?,
        Output::Tree => tree(&list, Look::here()),
    });
    Ok(ExitCode::SUCCESS)
}

/// On a terminal the tree is drawn over itself; elsewhere a line is written whenever something changes.
async fn watch(client: &Client, arguments: &GetArguments) -> Result<ExitCode> {
    let on_terminal = std::io::stdout().is_terminal() && arguments.output == Output::Tree;
    let mut last = String::new();
    let mut drawn_lines = 0;
    loop {
        let list = ask(client, arguments).await?;
        let now = match arguments.output {
            Output::Json => serde_json::to_string(&list).context("the answer cannot be printed")?,
            Output::Tree if on_terminal => tree(&list, Look::here()),
            Output::Tree => list.rollouts.iter().map(line).collect::<Vec<_>>().join("\n"),
        };
        if now != last {
            if on_terminal && drawn_lines > 0 {
                // Up to the first line of the former drawing, and clear from there (ECMA-48 CPL, ED).
                say(&format!("\x1b[{drawn_lines}F\x1b[J{now}"));
            } else {
                say(&now);
            }
            drawn_lines = now.lines().count();
            last = now;
        }
        sleep(PERIOD).await;
    }
}
