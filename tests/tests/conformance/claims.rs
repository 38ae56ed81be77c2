//! The claims of the suite, as tests.

/// Defines a test for each claim. The calling file defines `on`, which runs a claim on a kernel.
macro_rules! test_every_claim {
    () => {
        test_claims!(
            interfaces_addresses_and_routes_are_observed,
            the_objects_of_a_plan_are_observed_as_planned,
            our_routes_are_observed_in_the_tables_that_are_asked_for,
            a_vip_gets_a_local_route_of_its_own,
            the_ipvs_services_of_a_plan_are_observed_as_planned,
            an_equal_object_may_be_created_again,
            a_destination_that_exists_becomes_as_desired,
            an_existing_service_is_refused_and_kept,
            a_missing_object_may_be_removed_again,
            an_edit_is_in_place_and_a_missing_object_cannot_be_edited,
            steps_that_depend_on_a_failed_step_are_skipped_and_the_rest_is_done,
            real_servers_that_cannot_work_are_refused,
            an_unknown_scheduler_is_refused,
            only_the_requested_services_are_read,
            removing_a_device_removes_its_addresses_and_sysctls,
            a_second_device_with_the_same_end_is_refused,
            nothing_is_added_to_a_missing_interface,
            a_route_via_an_unreachable_gateway_is_refused,
            setting_ip_forward_changes_other_sysctls,
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
