//! The checks of Flagger's CRD for `spec.analysis`, and those of Serin for its guard.

use super::affinity::SessionAffinity;
use super::analysis::{Alert, Analysis, HeaderMatch, Metric, RequestMatch, Webhook};
use super::guard::{Guard, is_token};
use super::validate_service::check_string_matches;
use crate::duration::GoDuration;
use crate::interval::{interval, is_admitted};
use crate::problem::{Findings, quoted};

const PATH: &str = "spec.analysis";

pub(super) fn check(findings: &mut Findings, analysis: &Analysis) {
    if analysis.interval.is_none() {
        findings.error(format!("{PATH}.interval"), "is missing").help("time between two checks, such as 30s");
    }
    check_interval(findings, &format!("{PATH}.interval"), analysis.interval.as_deref());
    if analysis.threshold.is_none() {
        findings.error(format!("{PATH}.threshold"), "is missing").help("failed checks before a rollback, such as 5");
    }
    check_strategy(findings, analysis);
    check_weights(findings, analysis);
    for (index, matched) in analysis.matches().iter().enumerate() {
        check_match(findings, &format!("{PATH}.match[{index}]"), matched);
    }
    for (index, metric) in analysis.metrics().iter().enumerate() {
        check_metric(findings, &format!("{PATH}.metrics[{index}]"), metric);
    }
    for (index, alert) in analysis.alerts().iter().enumerate() {
        check_alert(findings, &format!("{PATH}.alerts[{index}]"), alert);
    }
    for (index, hook) in analysis.webhooks().iter().enumerate() {
        check_webhook(findings, &format!("{PATH}.webhooks[{index}]"), hook);
    }
    if let Some(affinity) = &analysis.session_affinity {
        check_affinity(findings, &format!("{PATH}.sessionAffinity"), affinity);
    }
    if let Some(guard) = &analysis.guard {
        check_guard(findings, &format!("{PATH}.guard"), guard);
    }
}

/// Exactly one of `stepWeight`, `stepWeights` and `iterations` (checklist 6).
fn check_strategy(findings: &mut Findings, analysis: &Analysis) {
    let strategies = [
        ("stepWeight", analysis.step_weight.is_some()),
        ("stepWeights", analysis.step_weights.is_some()),
        ("iterations", analysis.iterations.is_some()),
    ];
    let mut given = strategies.iter().filter(|(_, given)| *given).map(|(name, _)| *name);
    let help = "stepWeight and stepWeights move weights step by step, iterations is for blue/green and A/B";
    match (given.next(), given.next()) {
        (None, _) => {
            findings.error(PATH, "has none of stepWeight, stepWeights, iterations").help(help);
        }
        (Some(first), Some(second)) => {
            findings.error(format!("{PATH}.{second}"), format!("cannot stand beside {first}")).help(help);
        }
        (Some(_), None) => {}
    }
}

fn check_weights(findings: &mut Findings, analysis: &Analysis) {
    for (field, weight) in [
        ("stepWeight", analysis.step_weight),
        ("maxWeight", analysis.max_weight),
        ("stepWeightPromotion", analysis.step_weight_promotion),
        ("mirrorWeight", analysis.mirror_weight),
        ("primaryReadyThreshold", analysis.primary_ready_threshold),
        ("canaryReadyThreshold", analysis.canary_ready_threshold),
    ] {
        findings.within(format!("{PATH}.{field}"), weight, 0..=100);
    }
    for (index, weight) in analysis.step_weights().iter().enumerate() {
        findings.within(format!("{PATH}.stepWeights[{index}]"), Some(*weight), 0..=100);
    }
    findings.within(format!("{PATH}.iterations"), analysis.iterations, 0..=i64::from(i32::MAX));
    // Flagger accepts these and then does nothing at every tick, for ever.
    if analysis.step_weight == Some(0) {
        findings.warning(format!("{PATH}.stepWeight"), "a step of 0 never moves the canary on");
    }
    if let Some(index) = analysis.step_weights().windows(2).position(|pair| pair[1] <= pair[0]) {
        findings
            .warning(format!("{PATH}.stepWeights[{}]", index + 1), "is not more than the weight before it")
            .help("weights grow from step to step");
    }
    if analysis.step_weights.as_ref().is_some_and(Vec::is_empty) {
        findings.error(format!("{PATH}.stepWeights"), "is empty");
    }
}

fn check_interval(findings: &mut Findings, path: &str, text: Option<&str>) {
    match interval(text) {
        Ok(interval) => {
            if let Some(remark) = interval.remark {
                findings.warning(path, remark);
            }
        }
        Err(refused) => {
            let help = refused.instead.as_ref().map(|instead| format!("write {instead}"));
            findings.error(path, refused.to_string()).help = help;
        }
    }
}

fn check_match(findings: &mut Findings, path: &str, matched: &RequestMatch) {
    for (name, HeaderMatch { exact, prefix, suffix, regex }) in matched.headers.iter().flatten() {
        let path = format!("{path}.headers[\"{name}\"]");
        match [exact, prefix, suffix, regex].into_iter().flatten().count() {
            0 => {
                findings.error(path, "has none of exact, prefix, suffix, regex");
            }
            1 => {}
            _ => {
                findings.error(path, "has more than one of exact, prefix, suffix, regex");
            }
        }
    }
    check_string_matches(findings, &format!("{path}.queryParams"), matched.query_params.as_ref());
}

fn check_metric(findings: &mut Findings, path: &str, metric: &Metric) {
    findings.required(format!("{path}.name"), metric.name.as_deref());
    let interval_path = format!("{path}.interval");
    match metric.interval.as_deref() {
        // The window of a query is text that its provider reads; only the schema's pattern is ours to check.
        Some(text) if !metric.is_builtin() && is_admitted(text) => {}
        text => check_interval(findings, &interval_path, text),
    }
    if let Some(template) = &metric.template_ref {
        findings.required(format!("{path}.templateRef.name"), template.name.as_deref());
    }
    if let Some(range) = metric.threshold_range
        && let (Some(min), Some(max)) = (range.min, range.max)
        && min > max
    {
        findings
            .warning(format!("{path}.thresholdRange"), format!("no value passes: min {min} is more than max {max}"));
    }
}

fn check_alert(findings: &mut Findings, path: &str, alert: &Alert) {
    findings.required(format!("{path}.name"), alert.name.as_deref());
    match &alert.provider_ref {
        Some(provider) => {
            findings.required(format!("{path}.providerRef.name"), provider.name.as_deref());
        }
        None => {
            findings.error(format!("{path}.providerRef"), "is missing");
        }
    }
}

fn check_webhook(findings: &mut Findings, path: &str, hook: &Webhook) {
    findings.required(format!("{path}.name"), hook.name.as_deref());
    if let Some(url) = findings.required(format!("{path}.url"), hook.url.as_deref())
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        findings.error(format!("{path}.url"), format!("{} is not a URL of http or https", quoted(url)));
    }
    findings.within(format!("{path}.retries"), hook.retries, 0..=i64::from(i32::MAX));
    let Some(timeout) = hook.timeout.as_deref() else { return };
    let path = format!("{path}.timeout");
    if !is_admitted(timeout) {
        check_interval(findings, &path, Some(timeout));
    } else if let Err(error) = timeout.parse::<GoDuration>() {
        // Flagger takes this and then fails every call of the hook.
        findings.error(path, error.to_string());
    }
}

fn check_affinity(findings: &mut Findings, path: &str, affinity: &SessionAffinity) {
    findings.required(format!("{path}.cookieName"), affinity.cookie_name.as_deref());
    for (field, name) in [("cookieName", &affinity.cookie_name), ("primaryCookieName", &affinity.primary_cookie_name)] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty() && !is_token(name)) {
            findings
                .error(format!("{path}.{field}"), format!("{} cannot be a cookie's name", quoted(name)))
                .help("a name has letters, digits and signs such as - and _, without blanks (RFC 6265, section 4.1.1)");
        }
    }
    // Checklist 30, in Flagger's words.
    if affinity.cookie_name.is_some() && affinity.cookie_name == affinity.primary_cookie_name {
        findings.error(
            format!("{path}.primaryCookieName"),
            "can't use the same cookie name for both primary and cookie name; please update them to be different",
        );
    }
}

fn check_guard(findings: &mut Findings, path: &str, guard: &Guard) {
    for (field, share, zero_ok) in [
        ("falseRollback", guard.false_rollback, false),
        ("tolerance", guard.tolerance, true),
        ("margin", guard.margin, false),
        ("slo", guard.slo, false),
    ] {
        match share {
            Some(share) if share.value() >= 100.0 => {
                findings.error(format!("{path}.{field}"), format!("{share} is not less than 100%"));
            }
            Some(share) if share.value() == 0.0 && !zero_ok => {
                findings.error(format!("{path}.{field}"), "0% can never be shown").help("give a share above 0%");
            }
            Some(_) | None => {}
        }
    }
    findings.within(format!("{path}.budget"), guard.budget, 1..=i64::MAX);
    for (field, time, zero_ok) in [
        ("warmup", guard.warmup, true),
        ("bakeTime", guard.bake_time, true),
        ("maxDuration", guard.max_duration, false),
        ("burstGuard", guard.burst_guard, false),
        ("settle", guard.settle, true),
    ] {
        match time {
            Some(time) if time.is_negative() => {
                findings.error(format!("{path}.{field}"), format!("{time} is less than 0s"));
            }
            Some(time) if time == GoDuration::default() && !zero_ok => {
                findings.error(format!("{path}.{field}"), "0s is no time at all").help("leave the field out instead");
            }
            Some(_) | None => {}
        }
    }
}
