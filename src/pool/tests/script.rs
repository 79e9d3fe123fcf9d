//! Random scripts: after every step the state must keep what it promises, as seen from outside.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{PoolSettings, Return};
use super::world::{Step, World};

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = || 0_usize..16;
    let how = prop_oneof![
        6 => Just(Return::Reusable { keep_alive: None }),
        1 => Just(Return::Reusable { keep_alive: Some(Duration::from_secs(5)) }),
        1 => Just(Return::Reusable { keep_alive: Some(Duration::ZERO) }),
        1 => Just(Return::Spent),
        1 => Just(Return::Dropped),
        1 => Just(Return::Untouched),
    ];
    let step = prop_oneof![
        300 => Just(Step::Acquire),
        250 => (which(), how).prop_map(|(which, how)| Step::GiveBack { which, how }),
        30 => which().prop_map(|which| Step::Leave { which }),
        20 => which().prop_map(|which| Step::GiveUp { which }),
        150 => (0_usize..4, prop::bool::weighted(0.1))
            .prop_map(|(capacity, broken)| Step::Opened { capacity, broken }),
        30 => Just(Step::Failed),
        40 => (which(), any::<bool>()).prop_map(|(which, healthy)| Step::Checked { which, healthy }),
        100 => (0_u64..100_000).prop_map(|millis| Step::Advance(Duration::from_millis(millis))),
        100 => (0_u64..100).prop_map(|millis| Step::Advance(Duration::from_millis(millis))),
        30 => (which(), any::<bool>()).prop_map(|(which, drain)| Step::Break { which, drain }),
        20 => (which(), 0_usize..4).prop_map(|(which, capacity)| Step::Capacity { which, capacity }),
        2 => Just(Step::Close),
    ];
    proptest::collection::vec(step, 1..300)
}

fn settings() -> impl Strategy<Value = PoolSettings> {
    let limit =
        |seconds: u64| prop_oneof![Just(None), (1..seconds).prop_map(|s| Some(Duration::from_secs(s)))];
    let sizes = (0_usize..6, 1_usize..6, any::<bool>());
    (sizes, limit(400), limit(700), limit(60), limit(100)).prop_map(
        |((one, other, spread), idle_timeout, max_age, health_interval, held_too_long)| PoolSettings {
            spread,
            min_size: one.min(other),
            max_size: one.max(other),
            idle_timeout,
            max_age,
            health_interval,
            held_too_long,
            ..PoolSettings::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_pool_keeps_its_promises(
        settings in settings(),
        likely in prop_oneof![Just(None), (0_usize..4).prop_map(Some)],
        steps in steps(),
    ) {
        let mut world = World::new(settings, likely);
        for step in steps {
            world.step(step);
        }
        world.end();
    }
}
