//! The claims of the suite, as tests.

/// Makes a test of each claim. The file that calls it has `on`, which hands a claim a kernel.
macro_rules! test_every_claim {
    () => {
        test_claims!(
            the_machine_is_seen_with_its_interfaces_addresses_and_routes,
            what_a_plan_makes_is_observed_just_so,
            the_ipvs_services_of_a_plan_are_observed_just_so,
            what_is_there_just_so_may_be_made_again,
            a_service_that_exists_is_refused_and_stays,
            what_is_gone_may_be_removed_again,
            an_edit_changes_in_place_and_a_missing_thing_cannot_be_edited,
            what_depends_on_a_failed_step_is_skipped_and_the_rest_is_done,
            real_servers_that_cannot_work_are_refused,
            an_unknown_scheduler_is_refused,
            some_services_are_read_and_no_others,
            a_device_takes_its_addresses_and_sysctls_with_it,
            a_second_device_with_the_same_end_is_refused,
            nothing_is_added_to_an_interface_that_is_not_there,
            a_route_over_a_gateway_on_no_network_is_refused,
            forwarding_changes_other_sysctls_with_it,
        );
    };
}

macro_rules! test_claims {
    ($($claim:ident),* $(,)?) => {
        $(
            #[test]
            fn $claim() -> anyhow::Result<()> {
                on(async |kernel| suite::$claim(kernel).await)
            }
        )*
    };
}
