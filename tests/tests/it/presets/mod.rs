//! The presets against fakes of their providers. Each fake answers in the form that its provider documents, with pages, limits and
//! refusals, checks what requests have to carry, and signs its webhooks. All ids and texts are made up.
//!
//! | file | what |
//! |---|---|
//! | `fake` | the server behind all of them: what it has, what it was asked |
//! | `walk` | what every preset has to do: list, wait, follow changes, deletes and webhooks |
//! | the rest | one provider each |

mod fake;
mod github;
mod google_calendar;
mod hubspot;
mod linear;
mod notion;
mod salesforce;
mod shopify;
mod slack;
mod stripe;
mod walk;
mod zendesk;
