//! A base backup written down as a directory, with everything that the steps promise checked on the way.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use backstay_postgres::PostgresError;
use backstay_postgres::base_backup::{BaseBackup, BaseFacts};
use backstay_source::{BaseEnd, BaseRequest, BaseStep, Checkpoint, Phase};
use backstay_terms::{EntryHeader, EntryKind, EntryRole};
use backstay_testkit::pg::PgServer;

/// What arrived.
pub struct Received {
    pub end: BaseEnd,
    pub facts: BaseFacts,
    pub phases: Vec<Phase>,
    pub headers: Vec<EntryHeader>,
    /// Entries that are not part of the data directory.
    pub texts: BTreeMap<(EntryRole, String), Vec<u8>>,
}

impl Received {
    pub fn text(&self, role: EntryRole, path: &str) -> &[u8] {
        &self.texts[&(role, path.to_owned())]
    }
}

pub fn request(server: &PgServer, scratch: &str) -> BaseRequest {
    BaseRequest {
        label: "a test's".to_owned(),
        checkpoint: Checkpoint::Fast,
        rate_max: None,
        scratch: server.room().dir(scratch),
    }
}

/// Takes a backup into `into`: the data directory with `pg_wal` filled, tablespaces beside it.
pub async fn receive(server: &PgServer, into: &Path) -> Result<Received, PostgresError> {
    let mut backup = BaseBackup::begin(&server.conninfo(), &request(server, "scratch")).await?;
    let mut open: HashMap<u32, (EntryHeader, u64, Out)> = HashMap::new();
    let (mut phases, mut headers, mut texts) = (Vec::new(), Vec::new(), BTreeMap::new());
    fs::create_dir_all(into).unwrap();
    let end = loop {
        match backup.next_step().await? {
            BaseStep::Entry { number, header } => {
                assert_eq!(number as usize, headers.len(), "numbers are counted");
                headers.push(header.clone());
                let out = Out::open(into, &header);
                assert!(open.insert(number, (header, 0, out)).is_none());
            }
            BaseStep::Bytes {
                number,
                offset,
                bytes,
            } => {
                let (_, done, out) = open.get_mut(&number).unwrap();
                assert_eq!((offset, bytes.is_empty()), (*done, false));
                *done += bytes.len() as u64;
                out.write(&bytes);
            }
            BaseStep::EntryEnd { number } => {
                let (header, done, out) = open.remove(&number).unwrap();
                assert_eq!(done, header.size, "{header:?}");
                if let Out::Memory(bytes) = out {
                    texts.insert((header.role, header.path.to_string()), bytes);
                }
            }
            BaseStep::Progress(progress) => {
                if phases.last() != Some(&progress.phase) {
                    phases.push(progress.phase);
                }
            }
            BaseStep::End(end) => break *end,
        }
    };
    assert!(open.is_empty());
    assert_eq!(
        fs::read_dir(server.room().path().join("scratch"))
            .unwrap()
            .count(),
        0,
        "scratch files are left"
    );
    let facts = serde_json::from_value(end.engine_facts.clone()).unwrap();
    Ok(Received {
        end,
        facts,
        phases,
        headers,
        texts,
    })
}

enum Out {
    Disk(File),
    Memory(Vec<u8>),
    Nothing,
}

impl Out {
    fn open(into: &Path, header: &EntryHeader) -> Self {
        let path = header.path.as_text().unwrap();
        let place: PathBuf = match header.role {
            EntryRole::Data => into.join(path),
            EntryRole::Tablespace(oid) => into.with_extension(oid.to_string()).join(path),
            EntryRole::Wal => into.join("pg_wal").join(path),
            EntryRole::ServerManifest => into.join(path),
            _ => return Self::Memory(Vec::new()),
        };
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        match &header.kind {
            EntryKind::Directory => {
                fs::create_dir_all(&place).unwrap();
                fs::set_permissions(&place, fs::Permissions::from_mode(header.mode)).unwrap();
                Self::Nothing
            }
            EntryKind::File => Self::Disk(File::create(place).unwrap()),
            EntryKind::Link(_) => panic!("links are in the tablespace map"),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Disk(file) => file.write_all(bytes).unwrap(),
            Self::Memory(memory) => memory.extend_from_slice(bytes),
            Self::Nothing => panic!("a directory has bytes"),
        }
    }
}
