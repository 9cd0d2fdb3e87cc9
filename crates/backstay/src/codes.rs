//! The stable codes of errors, `BKS-nnnn`, and the exit that each leads to.
//!
//! Promise: a code never changes its meaning and is never reused. The number begins with the exit's (2000 to 9999 for
//! exits 2 to 9, 10nn, 11nn, 13nn and 14nn for exits 10, 11, 130 and 143); exit 1 has
//! 19nn.
//! Not here: the texts of one error (failure and whoever makes it).

use crate::exit::Exit;
use std::fmt;

macro_rules! codes {
    ($($name:ident = $number:literal, $exit:ident, $meaning:literal;)*) => {
        /// What kind of error it is; stable across versions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $name = $number,)*
        }

        impl Code {
            /// Every code, in order of its number.
            pub const ALL: &[Code] = &[$(Code::$name),*];

            /// How the process ends.
            pub fn exit(self) -> Exit {
                match self { $(Code::$name => Exit::$exit,)* }
            }

            /// What it means, for a table.
            pub fn meaning(self) -> &'static str {
                match self { $(Code::$name => $meaning,)* }
            }
        }
    };
}

codes! {
    ObjectiveViolated = 1001, Objective, "a check failed or an objective is not met";
    KeyMissing = 1101, Key, "a key file, variable or command gives no key";
    KeyMalformed = 1102, Key, "what was given as a key is not one";
    KeyWrong = 1103, Key, "none of the configured keys opens this";
    Interrupted = 1301, Interrupted, "stopped by SIGINT (Ctrl-C) before everything was done";
    Terminated = 1401, Terminated, "stopped by SIGTERM before everything was done";
    Other = 1900, Other, "an error without a code of its own";
    Defect = 1901, Other, "a defect in Backstay: it stopped itself";
    Output = 1902, Other, "the result could not be written";
    StoreFailed = 1903, Other, "the store failed in a way that it did not explain";
    LocalFile = 1904, Other, "a local file or directory could not be read or written";
    ServerFailed = 1905, Other, "the server answered with an error";
    Usage = 2001, Usage, "the command line is wrong";
    ConfigMissing = 2002, Usage, "there is no configuration file";
    ConfigUnreadable = 2003, Usage, "the configuration file cannot be read, is empty, or is not YAML";
    ConfigVersion = 2004, Usage, "the version of the configuration file is missing or unknown";
    ConfigUnknownKey = 2005, Usage, "the configuration has a key that Backstay does not know";
    ConfigType = 2006, Usage, "a value in the configuration has the wrong type";
    ConfigValue = 2007, Usage, "a value in the configuration is not acceptable";
    ConfigDuplicate = 2008, Usage, "a key stands twice in the configuration";
    ConfigIncomplete = 2009, Usage, "the configuration lacks something that this command needs";
    RepositoryScheme = 2010, Usage, "the repository is of a kind that this version does not know";
    ServiceUnknown = 2011, Usage, "the configuration has no service of that name";
    TimeUnreadable = 2012, Usage, "the target is not a time or a word of the grammar";
    TimeAmbiguous = 2013, Usage, "daylight saving makes the local time happen twice or not at all";
    ConnectionString = 2014, Usage, "the connection string of a service cannot be used";
    StoreDenied = 4001, NotAuthorised, "the store does not allow it";
    ServerDenied = 4002, NotAuthorised, "the server does not let us in or does not allow it";
    FileExists = 5001, Refused, "a file is already there and is never overwritten";
    StoreReadOnly = 5002, Refused, "the store takes no changes";
    NoSpace = 5003, Refused, "there is no space left";
    UnencryptedInProduction = 5004, Refused, "the production profile refuses to store data unencrypted";
    ServerNotReady = 5005, Refused, "the server is not set up for what was asked";
    NotSupported = 5006, Refused, "this server or store cannot do it";
    TargetRefused = 5007, Refused, "the directory to restore into cannot be used as it is";
    LogGone = 5008, Refused, "the server no longer has the log that is needed: a gap";
    LogBehind = 5009, Refused, "the server's log ends before the place where ours ends: another history";
    OtherSystem = 5010, Refused, "the server is another system than before";
    RepositoryRefused = 5011, Refused, "the repository is absent, of another kind, of a newer format, or not the expected one";
    NotConfirmed = 5012, Refused, "what was planned was not confirmed";
    NotFound = 6001, OutsideWindow, "there is no such thing";
    SegmentAbsent = 6002, OutsideWindow, "the log file does not exist, which is proved; `wal fetch` alone says this";
    BeforeWindow = 6011, OutsideWindow, "the target is before the first point that can be recovered";
    AfterWindow = 6012, OutsideWindow, "the target is after the last point that can be recovered";
    InGap = 6013, OutsideWindow, "the target is in a gap of the log";
    TargetAmbiguous = 6014, OutsideWindow, "the target means several points of the stored log, or may";
    Busy = 7001, Conflict, "somebody else uses what is needed";
    ForeignObject = 7002, Conflict, "another writer has stored other bytes under our name";
    StoreUnreachable = 8001, Unreachable, "the store cannot be reached or does not answer";
    ServerUnreachable = 8002, Unreachable, "the server cannot be reached or does not answer";
    StoreDamaged = 9001, Integrity, "the store holds something that cannot be true";
    ProtocolViolated = 9002, Integrity, "the server sent what its protocol does not allow";
    ProofFailed = 9003, Integrity, "what was restored or read is not what was stored";
}

impl Code {
    /// The number after `BKS-`.
    pub fn number(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BKS-{:04}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_digits_name_the_exit_and_the_table_is_in_order() {
        for code in Code::ALL {
            let exit = match code.number() {
                1000..=1099 => 10,
                1100..=1199 => 11,
                1300..=1399 => 130,
                1400..=1499 => 143,
                1900..=1999 => 1,
                other => other / 1000,
            };
            assert_eq!(u16::from(code.exit().number()), exit, "{code}");
        }
        assert!(Code::ALL.is_sorted());
    }
}
