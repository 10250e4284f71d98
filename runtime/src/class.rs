//! One class of a session's streams and messages, by its name.

use bytes::Bytes;
use sheetbend_core::session::{Delivery, Message, OpenError, SendError};
use sheetbend_core::wire::Class;

use crate::session::{Ended, Session, Tracked};
use crate::stream::{BiStream, RecvStream, SendStream};

/// A class of a session: its streams and messages have limits and a pace of their own. One consumer for each class,
/// however slow, holds up no other.
#[derive(Clone, Debug)]
pub struct SessionClass {
    session: Session,
    class: Class,
    delivery: Delivery,
}

impl Session {
    /// The class that this end's configuration calls so.
    pub fn class(&self, name: &str) -> Option<SessionClass> {
        let class = self.shared().lock().core.config().class_named(name)?;
        Some(self.in_class(class))
    }

    /// A class by its number.
    pub fn in_class(&self, class: Class) -> SessionClass {
        let delivery = self.shared().lock().core.config().classes[class.index()].delivery;
        SessionClass {
            session: self.clone(),
            class,
            delivery,
        }
    }
}

impl SessionClass {
    /// Its number.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// [`Session::open_bi`]
    ///
    /// # Errors
    /// As there.
    pub async fn open_bi(&self) -> Result<BiStream, OpenError> {
        self.session.open_bi(self.class).await
    }

    /// [`Session::open_uni`]
    ///
    /// # Errors
    /// As there.
    pub async fn open_uni(&self) -> Result<SendStream, OpenError> {
        self.session.open_uni(self.class).await
    }

    /// [`Session::accept_bi`]
    ///
    /// # Errors
    /// As there.
    pub async fn accept_bi(&self) -> Result<BiStream, Ended> {
        self.session.accept_bi(self.class).await
    }

    /// [`Session::accept_uni`]
    ///
    /// # Errors
    /// As there.
    pub async fn accept_uni(&self) -> Result<RecvStream, Ended> {
        self.session.accept_uni(self.class).await
    }

    /// [`Session::send_message`], the way that the class's messages travel.
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.session
            .send_message(self.class, self.delivery, payload)
            .await
    }

    /// [`Session::try_send_message`], the way that the class's messages travel.
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.session.try_send_message(self.class, self.delivery, payload)
    }

    /// [`Session::send_message_tracked`], the way that the class's messages travel.
    ///
    /// # Errors
    /// As there.
    pub async fn send_tracked(&self, payload: impl Into<Bytes>) -> Result<Tracked, SendError> {
        self.session
            .send_message_tracked(self.class, self.delivery, payload)
            .await
    }

    /// [`Session::recv_message`]
    ///
    /// # Errors
    /// As there.
    pub async fn recv(&self) -> Result<Message, Ended> {
        self.session.recv_message(self.class).await
    }
}
