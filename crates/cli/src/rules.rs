//! `postroom rules`: the table of rules on input. The table for people ends with the known providers that a preset may name.

use postroom::core::mailbox::{PRESETS, Preset};
use postroom::core::rules::RULES;

use crate::failure::Result;
use crate::output::{Output, table};

pub(crate) fn perform(output: Output) -> Result<()> {
    output.listing(&["Code", "Field", "Limit", "Remedy"], RULES, |rule| {
        [rule.code, rule.field, rule.limit, rule.remedy].map(str::to_owned).to_vec()
    })?;
    output.remark(|| {
        format!("\n{}", table(&["Preset", "Connections", "Per minute", "Per day"], PRESETS.iter().map(row)))
    })
}

fn row(preset: &Preset) -> Vec<String> {
    let number = |limit: Option<u32>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
    let connections = preset.max_connections.to_string();
    vec![preset.name.to_owned(), connections, number(preset.per_minute), number(preset.recipients_per_day)]
}
