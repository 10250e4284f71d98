//! What sessions promise, as one suite of tests that every runtime passes.
//!
//! A case is an asynchronous function of an [`Env`], which has a runtime and knows nothing else of the world. Cases use
//! the handles of `sheetbend-runtime` and the traits of its seam, so that their text is the same on tokio, on smol, on
//! async-std's executor and in the simulator. [`suite!`](crate::suite) makes a test of each: the runner that it is given says where
//! they run. `tests/` has one file for each runtime.
//!
//! Nothing here waits for a length of time to pass, nor says how long anything may take: where something comes to hold
//! some time, it is looked for again and again by the runtime's clock.
#![forbid(unsafe_code)]
// The cases are called by their names, which say what they show; assertions are their errors.
#![allow(missing_docs, clippy::missing_panics_doc)]

mod env;
mod relay;

pub mod bad_input;
pub mod calls;
pub mod classes;
pub mod early;
pub mod failover;
pub mod lifecycle;
pub mod messages;
pub mod requests;
pub mod seam;
pub mod streams;
pub mod transports;

pub use env::{Env, Pair, Task, Wire, limited, pattern, pending_once, until, yield_now};
pub use relay::Relay;

/// Makes a test of every case, in a module for each family. The runner takes a case and runs it to its end:
/// `fn run<F: Future<Output = ()> + Send + 'static>(case: impl FnOnce(Env) -> F)`.
#[macro_export]
macro_rules! suite {
    ($run:ident) => {
        $crate::tests! { $run:
            seam {
                a_timer_expires_after_its_deadline_and_stays_expired,
                a_timer_that_is_set_again_expires_once_more,
                tries_do_not_take_a_waiter_its_turn,
                a_socket_ends_and_says_so_over_tcp,
                a_socket_ends_and_says_so_over_a_unix_socket,
                a_socket_ends_and_says_so_in_memory,
                names_and_addresses_are_resolved,
                names_are_taken_and_given_back,
                files_are_written_published_and_read_back,
                seeds_differ,
                tasks_run_beside_each_other,
            }
            streams {
                bytes_arrive_intact_both_ways_over_tcp,
                bytes_arrive_intact_both_ways_over_a_unix_socket,
                bytes_arrive_intact_both_ways_in_memory,
                streams_are_readers_and_writers,
                a_hundred_streams_do_not_mix,
                stop_and_limits_are_told,
                a_writer_waits_for_a_reader_that_rests,
                a_reset_is_no_end_of_the_stream,
                nobody_waits_for_the_acknowledgement_of_what_was_given_up,
            }
            messages {
                ordered_messages_keep_their_order,
                unordered_messages_come_once_each,
                unreliable_messages_and_datagrams_pass_on_a_sound_path,
                tracked_messages_tell_their_outcome,
                a_full_queue_says_so_or_waits,
                every_tracked_message_is_told_its_outcome,
            }
            requests {
                a_thousand_requests_at_once_over_tcp,
                a_thousand_requests_at_once_over_a_unix_socket,
                a_thousand_requests_at_once_in_memory,
                requests_go_both_ways,
                large_and_empty_payloads_pass,
                failures_are_told_apart,
                a_request_that_is_too_long_is_refused_by_the_server,
                dropped_requests_leave_nothing_behind,
                requests_in_line_for_a_stream_may_be_dropped,
                requests_are_not_lost_with_those_who_gave_up_waiting_for_them,
            }
            calls {
                all_four_kinds_over_tcp,
                all_four_kinds_over_a_unix_socket,
                all_four_kinds_in_memory,
                items_are_fed_from_slices_and_read_where_they_lie,
                what_a_call_says_of_itself_comes_with_it,
                an_item_that_is_given_up_leaves_nothing_behind,
                items_end_with_trailers_or_a_failure,
                a_deadline_ends_the_call_at_both_ends,
                a_call_that_is_dropped_is_dropped_at_the_other_end,
                a_panic_is_the_failure_of_that_call_alone,
                limits_let_so_many_run_and_so_many_wait,
                a_key_is_executed_once_and_repeats_get_its_answer,
                reused_keys_do_not_grow_the_table,
                methods_are_named_once_in_a_session,
                a_drained_session_finishes_its_calls,
            }
            classes {
                a_consumer_that_stands_still_holds_up_its_own_class_alone,
                classes_have_names_and_mistakes_too,
            }
            transports {
                tcp_carries_everything,
                unix_sockets_carry_everything,
                memory_carries_everything,
                tls_carries_everything,
                a_websocket_carries_everything,
                a_websocket_over_tls_carries_everything,
                binary_http_carries_everything,
                event_streams_carry_everything,
                lines_of_json_carry_everything,
                long_polls_carry_everything,
                https_carries_everything,
                quic_carries_everything,
                webtransport_carries_everything,
                whatever_works_carries_everything,
                proxies_lead_to_the_server,
                a_transport_of_ones_own_carries_everything,
                a_server_that_cannot_be_trusted_is_refused,
            }
            early {
                a_known_server_is_called_in_the_first_flight,
                what_the_server_does_not_take_goes_again_and_is_done_once,
                either_end_may_do_without_the_first_flight,
                no_other_transport_begins_before_its_handshake,
                a_path_that_joins_waits_for_its_handshake,
            }
            failover {
                messages_survive_cuts_of_the_only_path,
                messages_survive_cuts_with_a_standby,
                messages_survive_cuts_of_tls,
                messages_survive_cuts_of_a_websocket,
                messages_survive_cuts_of_a_websocket_over_tls,
                messages_survive_cuts_of_binary_http,
                messages_survive_cuts_of_an_event_stream,
                messages_survive_cuts_of_long_polls,
                messages_survive_switches_among_all_of_one_port,
                streams_survive_cuts_both_ways,
                requests_run_once_through_cuts,
                a_cut_is_told_as_events,
                a_session_on_tls_does_not_move_to_a_plain_connection,
            }
            lifecycle {
                a_refused_connection_is_a_clear_error,
                close_tells_the_other_end_why,
                drain_finishes_what_is_open_and_refuses_the_new,
                a_server_that_forgot_the_session_leaves_outcomes,
                ten_thousand_handles_dropped_at_bad_moments_harm_nobody,
                connections_given_up_at_bad_moments_harm_nobody,
                a_session_without_handles_delivers_what_was_queued_and_closes,
                a_security_floor_refuses_weaker_carriers,
                a_server_that_is_dropped_lets_go_of_its_port,
            }
            bad_input {
                garbage_on_the_port_harms_nobody,
                garbage_of_every_first_byte_harms_nobody,
                a_session_is_cut_anywhere_in_its_first_bytes,
                garbage_amid_a_session_ends_its_path_alone,
                a_server_of_another_protocol_is_a_clear_error,
                a_server_that_hangs_up_is_a_clear_error,
                strangers_are_told_politely,
            }
        }
    };
}

/// What [`suite!`](crate::suite) is made of: the tests of some families.
#[macro_export]
macro_rules! tests {
    ($run:ident: $($family:ident { $($case:ident,)* })*) => {
        $(mod $family {
            $(#[test]
            fn $case() {
                super::$run($crate::$family::$case);
            })*
        })*
    };
}
