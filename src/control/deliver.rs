//! Takes owed deliveries from the outbox and makes the attempts.
