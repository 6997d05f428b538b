//! The table of routes: one row for each method of each path. The contract
//! ([`contract`](crate::api::contract)) is made from it.

use std::sync::Arc;

use hyper::Method;

use super::address_queries::{self, ListTransactions, TransactionPage};
use super::addresses::{self, AddressPage, ListAddresses};
use super::audit::AuditShape;
use super::consumer_shape::{
    Acknowledged, ConsumerList, ConsumerShape, DefinedConsumer, DeletedConsumer,
};
use super::consumers::{self, AckConsumer, PutConsumer};
use super::descriptors::addresses::{DerivedPage, GivenAddress, ListDerived, NextAddress};
use super::descriptors::{
    self, AddDescriptor, AddedDescriptor, DescriptorPage, ListDescriptors, RemovedDescriptor,
};
use super::edge::{self, BeginSubscription, FollowTokens};
use super::event_stream::{self, EventStreamText, StreamEvents};
use super::events::{EventPage, ReadEvents};
use super::labels::{self, AddressLabel, ChangeLabel, DescriptorLabel};
use super::metrics::PrometheusText;
use super::reading;
use super::respond::{Done, Reply, WithCursor};
use super::route::{Mark, Route, SentShape, routes};
use super::scans::{self, BegunAddressScan, BegunListScan, ScanList, ScanOne, ScanPage};
use super::sent::Intake;
use super::session::{self, LogIn, LoggedOut, SessionShape};
use super::status::{self, Live, Ready, Started};
use super::status_shape::Status;
use super::token::{self, TokenShape};
use super::utxos::{self, ListUtxos, UtxoPage};
use super::watchlist::{
    self, AddAddress, AddAddresses, AddedAddress, AddedAddresses, RemovedAddress,
};
use super::webhooks::{
    self, Counted, DeadLetterPage, DropDeadLetters, ListDeadLetters, ResendDeadLetters,
    TestedWebhook,
};
use crate::api::Services;
use crate::api::contract::{self, Contract};
use crate::api::scans::ScanShape;
use crate::api::socket::BegunSubscription;
use crate::auth::{Principal, Scope, needed};
use crate::primary::EdgeState;
use crate::wire::error::ApiError;
use crate::wire::json::{Balance, DescriptorShape};
use crate::wire::schema;

routes! {
    GET "/status" read "What the daemon knows of itself and of the node"
        nothing => Status |services, sent| {
        status::status(&services.overview, sent.sessions).await
    };
    POST "/start" admin "Starts monitoring, and catches up on what was missed"
        nothing => Started |services, sent| {
        status::start_monitoring(&services.overview, sent.sessions).await
    };
    POST "/stop" admin "Stops monitoring, also across restarts"
        nothing => Done |services, sent| {
        status::stop_monitoring(&services.overview).await
    };
    POST "/add_address" watch "Watches an address"
        body(asked: AddAddress) => WithCursor<AddedAddress>, 409 |services, sent| {
        watchlist::add_address(&services.scans, &sent.principal, asked).await
    };
    #[Costly]
    POST "/add_addresses" watch "Watches addresses: all of them or, when one is bad, none"
        body(asked: AddAddresses) => WithCursor<AddedAddresses>, 409 |services, sent| {
        watchlist::add_addresses(&services.scans, &sent.principal, asked).await
    };
    GET "/addresses" read "The watch list, in pages"
        query(asked: ListAddresses) => WithCursor<AddressPage> |services, sent| {
        addresses::addresses(&services.reads, &services.intake.budget, asked).await
    };
    PATCH "/addresses/{address}" watch "Calls an address something else"
        body(asked: ChangeLabel) => WithCursor<AddressLabel> |services, sent| {
        labels::label_address(&services.scans, &sent.part, asked).await
    };
    DELETE "/addresses/{address}" watch "Takes an address off the list, and forgets what was known of it"
        nothing => WithCursor<RemovedAddress>, 409 |services, sent| {
        watchlist::remove_address(&services.scans, &sent.part).await
    };
    GET "/balance/{address}" read "What an address owns"
        nothing => Balance |services, sent| {
        address_queries::balance(&services.reads, &sent.part).await
    };
    GET "/transactions/{address}" read "The transactions of an address, newest first, in pages"
        query(asked: ListTransactions) => WithCursor<TransactionPage> |services, sent| {
        let Services { reads, intake: Intake { budget, .. }, overview, .. } = &*services;
        let policy = overview.monitoring.replacement();
        address_queries::transactions(reads, budget, policy, &sent.part, asked).await
    };
    GET "/utxos/{address}" read "The unspent outputs of an address, in pages or all of them"
        query(asked: ListUtxos) => UtxoPage |services, sent| {
        utxos::utxos(&services.reads, &services.intake.budget, &sent.part, asked).await
    };
    #[Costly]
    POST "/descriptors" watch "Watches a descriptor: 201 for a new one, 200 for one that is there"
        body(asked: AddDescriptor) => 200 201 WithCursor<AddedDescriptor>, 409 |services, sent| {
        let descriptors = &services.descriptors;
        descriptors::add_descriptor(descriptors, &sent.principal, asked, &sent.concerns).await
    };
    GET "/descriptors" read "The descriptors, in pages"
        query(asked: ListDescriptors) => WithCursor<DescriptorPage> |services, sent| {
        descriptors::list_descriptors(&services.reads, &services.intake.budget, asked).await
    };
    GET "/descriptors/{id}" read "A descriptor"
        nothing => WithCursor<DescriptorShape> |services, sent| {
        descriptors::descriptor(&services.reads, &sent.part).await
    };
    PATCH "/descriptors/{id}" watch "Calls a descriptor something else"
        body(asked: ChangeLabel) => WithCursor<DescriptorLabel> |services, sent| {
        labels::label_descriptor(&services.scans, &sent.part, asked).await
    };
    DELETE "/descriptors/{id}" watch "Takes a descriptor off; addresses that were added by themselves stay"
        nothing => WithCursor<RemovedDescriptor>, 409 |services, sent| {
        descriptors::remove_descriptor(&services.descriptors, &sent.part).await
    };
    GET "/descriptors/{id}/balance" read "What a descriptor owns"
        nothing => Balance |services, sent| {
        descriptors::queries::balance(&services.reads, &sent.part).await
    };
    GET "/descriptors/{id}/transactions" read "The transactions of a descriptor, newest first, in pages"
        query(asked: ListTransactions) => WithCursor<TransactionPage> |services, sent| {
        let Services { reads, intake: Intake { budget, .. }, overview, .. } = &*services;
        let policy = overview.monitoring.replacement();
        descriptors::queries::transactions(reads, budget, policy, &sent.part, asked).await
    };
    GET "/descriptors/{id}/utxos" read "The unspent outputs of a descriptor, in pages or all of them"
        query(asked: ListUtxos) => UtxoPage |services, sent| {
        let Services { reads, intake: Intake { budget, .. }, .. } = &*services;
        descriptors::queries::utxos(reads, budget, &sent.part, asked).await
    };
    GET "/descriptors/{id}/addresses" read "The addresses of a descriptor, in pages"
        query(asked: ListDerived) => WithCursor<DerivedPage> |services, sent| {
        let Services { reads, intake: Intake { budget, .. }, .. } = &*services;
        descriptors::addresses::addresses(reads, budget, &sent.part, asked).await
    };
    #[Costly]
    POST "/descriptors/{id}/next_address" watch "The next unused address, which is given to nobody else"
        body(asked: NextAddress) => WithCursor<GivenAddress>, 409 |services, sent| {
        let (descriptors, principal) = (&services.descriptors, &sent.principal);
        descriptors::addresses::next_address(descriptors, principal, &sent.part, asked).await
    };
    #[Costly]
    POST "/audit/{address}" admin "Our confirmed unspent outputs beside the node's; may take minutes"
        nothing => WithCursor<AuditShape> |services, sent| {
        services.auditor.audit(&sent.part).await
    };
    #[Costly]
    POST "/audit/descriptors/{id}" admin "The same of a descriptor"
        nothing => WithCursor<AuditShape> |services, sent| {
        services.auditor.audit_descriptor(&sent.part).await
    };
    #[Costly]
    POST "/scan_history" watch "Scans the history of addresses, or of a descriptor"
        body(asked: ScanList) => 202 WithCursor<BegunListScan>, 404, 409 |services, sent| {
        let descriptors = &services.descriptors;
        scans::scan_history_of_list(descriptors, &sent.principal, asked, &sent.concerns).await
    };
    #[Costly]
    POST "/scan_history/{address}" watch "Scans the history of an address"
        body(asked: ScanOne) => 202 WithCursor<BegunAddressScan>, 409 |services, sent| {
        scans::scan_history(&services.scans, &sent.principal, &sent.part, asked).await
    };
    GET "/scans" read "History scans, first those that are not over"
        nothing => ScanPage |services, sent| scans::list_scans(&services.scans).await;
    GET "/scans/{id}" read "A history scan"
        nothing => ScanShape |services, sent| scans::scan(&services.scans, &sent.part).await;
    DELETE "/scans/{id}" watch "Cancels a history scan; what it has found stays"
        nothing => ScanShape, 409 |services, sent| {
        scans::cancel_scan(&services.scans, &sent.part).await
    };
    GET "/events" read "The log of events, oldest first, with long polling"
        query(asked: ReadEvents) => EventPage, 404, 409, 410 |services, sent| {
        let events = &services.events;
        match asked.consumer.clone() {
            Some(name) => {
                sent.principal.require(Scope::Watch)?;
                reading::consumer_events(events, &services.reads, &services.consumers, &name, asked).await
            }
            None => events.events(&services.reads, asked, sent.asked).await,
        }
    };
    #[Stream]
    GET "/events/stream" read "The log of events as server-sent events"
        query(asked: StreamEvents) => EventStreamText, 404, 409 |services, sent| {
        let Services { events, consumers, reads, .. } = &*services;
        let (principal, last) = (sent.principal.clone(), sent.last_event_id.clone());
        match asked.consumer.clone() {
            Some(name) => {
                principal.require(Scope::Watch)?;
                let own = (&**consumers, reads);
                event_stream::stream_consumer(events, own, &name, asked, last, principal).await
            }
            None => event_stream::stream_events(events, Arc::new(services.reads.clone()), asked, last, principal).await,
        }
    };
    GET "/consumers" read "The consumers"
        nothing => WithCursor<ConsumerList> |services, sent| {
        consumers::list_consumers(&services.consumer_routes, &sent.principal).await
    };
    GET "/consumers/{name}" read "A consumer"
        nothing => ConsumerShape |services, sent| {
        consumers::consumer(&services.consumer_routes, &sent.principal, &sent.part).await
    };
    PUT "/consumers/{name}" watch "Defines a consumer, with a webhook if there is a URL"
        body(asked: PutConsumer) => 200 201 DefinedConsumer, 409, 410 |services, sent| {
        let routes = &services.consumer_routes;
        let costly = || sent.count_costly(&sent.principal);
        consumers::put_consumer(routes, &sent.principal, &sent.part, asked, costly).await
    };
    DELETE "/consumers/{name}" watch "Forgets a consumer; its addresses stay watched"
        nothing => DeletedConsumer |services, sent| {
        consumers::delete_consumer(&services.consumers, &sent.principal, &sent.part).await
    };
    #[Unlogged]
    POST "/consumers/{name}/ack" watch "Everything up to a cursor is done"
        body(asked: AckConsumer) => Acknowledged, 409, 410 |services, sent| {
        consumers::ack(&services.consumer_routes, &sent.part, asked).await
    };
    GET "/consumers/{name}/dead_letters" admin "What the receiver of a webhook did not take"
        query(asked: ListDeadLetters) => DeadLetterPage, 410 |services, sent| {
        webhooks::dead_letters(&services.consumer_routes, &sent.part, asked).await
    };
    DELETE "/consumers/{name}/dead_letters" admin "Deletes dead letters: one, or all"
        query(asked: DropDeadLetters) => Counted, 409, 410 |services, sent| {
        webhooks::drop_dead_letters(&services.consumer_routes, &sent.part, asked).await
    };
    #[Costly]
    POST "/consumers/{name}/dead_letters/resend" admin "Sends dead letters again: some, or all"
        body(asked: ResendDeadLetters) => 200 202 Counted, 409, 410 |services, sent| {
        webhooks::resend_dead_letters(&services.consumer_routes, &sent.part, asked).await
    };
    #[Costly]
    POST "/consumers/{name}/test" admin "Sends a test to a webhook"
        nothing => TestedWebhook, 409 |services, sent| {
        webhooks::test_webhook(&services.consumer_routes, &sent.part).await
    };
    #[Costly]
    POST "/consumers/{name}/retry" admin "Sends what waits for another try now"
        nothing => 200 202 Counted, 409 |services, sent| {
        webhooks::retry_webhook(&services.consumer_routes, &sent.part).await
    };
    GET "/token" any "Who asks, and what they may do"
        nothing => TokenShape |_services, sent| Ok(token::token(&sent.principal));
    GET "/edge" read "For edges, not for clients: who is let in, with long polling, and where the log is"
        query(asked: FollowTokens) => EdgeState |services, sent| {
        edge::follow_tokens(&services, asked, sent.asked).await
    };
    #[Unlogged]
    POST "/edge/subscription" read "For edges, not for clients: a subscription of Socket.IO begins"
        body(asked: BeginSubscription) => BegunSubscription, 404, 409 |services, sent| {
        edge::begin_subscription(&services, &sent, asked).await
    };
    POST "/session" open "The page logs in: a session in place of a token"
        body(asked: LogIn) => SessionShape, 401, 409 |services, sent| {
        let count = |principal: &Principal| sent.count_costly(principal);
        session::log_in(&services.sessions, &sent.page, asked, count).await
    };
    DELETE "/session" open "The page logs out"
        nothing => LoggedOut, 401 |services, sent| {
        session::log_out(&services.sessions, &sent.page).await
    };
    GET "/metrics" metrics "What Prometheus reads"
        nothing => PrometheusText |services, sent| services.overview.metrics(sent.sessions).await;
    #[Uncounted]
    GET "/health/live" open "The process answers"
        nothing => Live |_services, sent| Ok(status::live());
    #[Uncounted]
    GET "/health/ready" open "200 once the daemon follows the node's tip and its feeds"
        nothing => Ready |services, sent| status::ready(&services.overview).await;
    GET "/openapi.json" open "This document (OpenAPI 3.1)"
        nothing => Contract |_services, sent| Ok(contract::openapi(ROUTES));
    GET "/asyncapi.json" open "Events, of Socket.IO and of the stream (AsyncAPI 3.0)"
        nothing => Contract |_services, sent| Ok(contract::asyncapi());
}
