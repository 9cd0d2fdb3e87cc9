//! Start-up and authentication.
//!
//! Promise: a password leaves only as SCRAM or MD5, or in clear when nobody can read along. A server that began SCRAM
//! must end it with its own proof. With `channel_binding=require` nothing less than SCRAM-SHA-256-PLUS logs in.
//! Not here: finding the password file's path (conninfo), the encrypted channel (tls).

use std::path::PathBuf;

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use zeroize::Zeroizing;

use super::frames::Frames;
use super::messages::{malformed, notice};
use crate::conninfo::{ChannelBindingWanted, Host, PassfileAnswer, PassfileQuery, Secret};
use crate::error::PostgresError;

/// What a login needs to know.
pub(crate) struct Login<'a> {
    pub(crate) host: &'a Host,
    pub(crate) user: &'a str,
    pub(crate) password: Option<&'a Secret>,
    pub(crate) passfile: Option<&'a PathBuf>,
    /// The database's name in the password file.
    pub(crate) passfile_database: &'a str,
    pub(crate) parameters: Vec<(&'a str, &'a str)>,
    pub(crate) binding_wanted: ChannelBindingWanted,
    /// Hash of the server's certificate, when the channel is encrypted and the hash is defined.
    pub(crate) binding: Option<Vec<u8>>,
}

/// How the server was convinced, and it us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    None,
    Password,
    Bound,
}

/// Sends the start-up message and answers until the server says that we are in.
pub(crate) async fn log_in(frames: &mut Frames, login: &Login<'_>) -> Result<(), PostgresError> {
    frontend::startup_message(login.parameters.iter().copied(), frames.outgoing()).map_err(malformed)?;
    let proof = match login.ask(frames).await? {
        Message::AuthenticationOk => return login.accept(Proof::None),
        Message::AuthenticationCleartextPassword => login.answer_in_clear(frames).await?,
        Message::AuthenticationMd5Password(body) => login.answer_md5(frames, body.salt()).await?,
        Message::AuthenticationSasl(body) => login.answer_sasl(frames, &body).await?,
        other => return Err(login.unknown_request(&other)),
    };
    match login.next(frames).await? {
        Message::AuthenticationOk => login.accept(proof),
        other => Err(login.unknown_request(&other)),
    }
}

impl Login<'_> {
    async fn ask(&self, frames: &mut Frames) -> Result<Message, PostgresError> {
        frames.flush().await.map_err(|source| self.lost(source))?;
        self.next(frames).await
    }

    async fn next(&self, frames: &mut Frames) -> Result<Message, PostgresError> {
        loop {
            let mut frame = frames.next().await.map_err(|source| self.lost(source))?;
            match Message::parse(&mut frame).map_err(malformed)? {
                Some(Message::ErrorResponse(body)) => return Err(notice(body.fields())?.into()),
                Some(Message::NoticeResponse(_)) => {}
                Some(message) => return Ok(message),
                None => return Err(PostgresError::protocol("a message is cut short")),
            }
        }
    }

    fn lost(&self, source: std::io::Error) -> PostgresError {
        PostgresError::lost(&self.host.display(), source)
    }

    fn refuse(&self, reason: impl Into<String>) -> PostgresError {
        PostgresError::Authentication {
            host: self.host.display(),
            reason: reason.into(),
        }
    }

    fn unknown_request(&self, message: &Message) -> PostgresError {
        self.refuse(match message {
            Message::AuthenticationGss | Message::AuthenticationGssContinue(_) => {
                "the server asks for GSSAPI"
            }
            Message::AuthenticationSspi => "the server asks for SSPI",
            Message::AuthenticationKerberosV5 => "the server asks for Kerberos 5",
            _ => "the server sent a message that does not belong into a login",
        })
    }

    fn accept(&self, proof: Proof) -> Result<(), PostgresError> {
        match (self.binding_wanted, proof) {
            (ChannelBindingWanted::Require, Proof::None | Proof::Password) => {
                Err(self.refuse("channel_binding=require, and the server let us in without it"))
            }
            _ => Ok(()),
        }
    }

    fn password(&self) -> Result<Secret, PostgresError> {
        if let Some(password) = self.password {
            return Ok(password.clone());
        }
        let query = PassfileQuery {
            host: self.host,
            database: self.passfile_database,
            user: self.user,
        };
        let passfile = match self.passfile.map(|path| query.ask(path)) {
            Some(PassfileAnswer::Password(password)) => return Ok(password),
            Some(PassfileAnswer::Ignored(reason)) => {
                tracing::warn!(%reason, "password file not used");
                reason
            }
            Some(PassfileAnswer::Nothing) | None => String::new(),
        };
        Err(PostgresError::PasswordMissing {
            host: self.host.display(),
            user: self.user.to_owned(),
            passfile,
        })
    }

    // Before a password leaves: with channel binding required, no weaker method may see it.
    fn password_for_weaker_method(&self, method: &str) -> Result<Secret, PostgresError> {
        match self.binding_wanted {
            ChannelBindingWanted::Require => Err(self.refuse(format!(
                "channel_binding=require, and the server asks for {method}"
            ))),
            _ => self.password(),
        }
    }

    async fn answer_in_clear(&self, frames: &mut Frames) -> Result<Proof, PostgresError> {
        if !frames.is_private() {
            return Err(self
                .refuse("the server asks for the password in clear over an unencrypted network connection"));
        }
        let password = self.password_for_weaker_method("a clear password")?;
        self.send_password(frames, password.expose().as_bytes()).await
    }

    async fn answer_md5(&self, frames: &mut Frames, salt: [u8; 4]) -> Result<Proof, PostgresError> {
        let password = self.password_for_weaker_method("md5")?;
        let hash = Zeroizing::new(md5_hash(self.user.as_bytes(), password.expose().as_bytes(), salt));
        self.send_password(frames, hash.as_bytes()).await
    }

    async fn send_password(&self, frames: &mut Frames, bytes: &[u8]) -> Result<Proof, PostgresError> {
        frontend::password_message(bytes, frames.outgoing()).map_err(malformed)?;
        frames.flush().await.map_err(|source| self.lost(source))?;
        Ok(Proof::Password)
    }

    async fn answer_sasl(
        &self,
        frames: &mut Frames,
        body: &AuthenticationSaslBody,
    ) -> Result<Proof, PostgresError> {
        let (mechanism, binding, proof) = self.mechanism(body)?;
        let password = self.password()?;
        let mut scram = sasl::ScramSha256::new(password.expose().as_bytes(), binding);
        frontend::sasl_initial_response(mechanism, scram.message(), frames.outgoing()).map_err(malformed)?;
        let Message::AuthenticationSaslContinue(body) = self.ask(frames).await? else {
            return Err(self.refuse("the server broke off SCRAM"));
        };
        scram
            .update(body.data())
            .map_err(|error| self.refuse(format!("SCRAM: {error}")))?;
        frontend::sasl_response(scram.message(), frames.outgoing()).map_err(malformed)?;
        let Message::AuthenticationSaslFinal(body) = self.ask(frames).await? else {
            return Err(self.refuse("the server did not prove that it knows the password"));
        };
        scram
            .finish(body.data())
            .map_err(|error| self.refuse(format!("SCRAM: {error}")))?;
        Ok(proof)
    }

    fn mechanism(
        &self,
        body: &AuthenticationSaslBody,
    ) -> Result<(&'static str, sasl::ChannelBinding, Proof), PostgresError> {
        let offered: Vec<String> = body
            .mechanisms()
            .map(|name| Ok(name.to_owned()))
            .collect()
            .map_err(malformed)?;
        let offers = |name: &str| offered.iter().any(|offer| offer == name);
        let binding = self
            .binding
            .clone()
            .filter(|_| self.binding_wanted != ChannelBindingWanted::Disable);
        match binding {
            Some(hash) if offers(sasl::SCRAM_SHA_256_PLUS) => Ok((
                sasl::SCRAM_SHA_256_PLUS,
                sasl::ChannelBinding::tls_server_end_point(hash),
                Proof::Bound,
            )),
            _ if self.binding_wanted == ChannelBindingWanted::Require => {
                Err(self.refuse("channel_binding=require, and this connection cannot have it"))
            }
            // Saying "y" lets the server notice that somebody removed PLUS from its offer.
            Some(_) if offers(sasl::SCRAM_SHA_256) => Ok((
                sasl::SCRAM_SHA_256,
                sasl::ChannelBinding::unrequested(),
                Proof::Password,
            )),
            None if offers(sasl::SCRAM_SHA_256) => Ok((
                sasl::SCRAM_SHA_256,
                sasl::ChannelBinding::unsupported(),
                Proof::Password,
            )),
            _ => Err(self.refuse(format!("the server offers only {}", offered.join(", ")))),
        }
    }
}
