//! What arrived, compared with what the server's manifest lists.
//!
//! Promise: every file is compared by path, size and CRC-32C, in any order and in constant memory; a difference names a file.
//! Not here: reading the manifest (manifest).

#[cfg(test)]
mod tests;

use std::path::Path;

use aws_lc_rs::digest;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::manifest::ListedFile;
use super::spool::{Spool, SpoolReader};
use crate::error::PostgresError;

/// Every file that arrived, in the order of arrival.
#[derive(Debug)]
pub(super) struct Ledger {
    spool: Spool,
    sum: Sum,
}

/// A sum of hashes: equal for equal sets of files, whatever their order. 256 bits wide, so that no accident makes two
/// different sets equal; the server is not an opponent here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum([u64; 4]);

impl Sum {
    fn add(&mut self, record: &[u8]) {
        let hash = digest::digest(&digest::SHA256, record);
        let mut carry = false;
        for (limb, bytes) in self.0.iter_mut().zip(hash.as_ref().chunks_exact(8)) {
            let term = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
            let (one, over) = limb.overflowing_add(term);
            let (two, more) = one.overflowing_add(u64::from(carry));
            (*limb, carry) = (two, over || more);
        }
    }
}

fn record(file: &ListedFile) -> BytesMut {
    let mut record = BytesMut::with_capacity(16 + file.path.len());
    record.put_u32(file.path.len() as u32);
    record.put_slice(&file.path);
    record.put_u64(file.size);
    record.put_u32(file.checksum);
    record
}

impl Ledger {
    pub(super) fn new(scratch: &Path) -> Self {
        Self {
            spool: Spool::new(scratch, "arrived"),
            sum: Sum::default(),
        }
    }

    /// A file arrived whole.
    pub(super) async fn arrived(&mut self, file: &ListedFile) -> Result<(), PostgresError> {
        let record = record(file);
        self.sum.add(&record);
        self.spool.append(&record).await
    }

    /// Nothing more will arrive.
    pub(super) async fn into_comparison(self) -> Result<Comparison, PostgresError> {
        Ok(Comparison {
            arrived: self.spool.into_reader().await?,
            buffer: BytesMut::new(),
            arrived_sum: self.sum,
            listed_sum: Sum::default(),
            difference: None,
        })
    }
}

/// Compares in the order of the list, which is that of sending; the sums decide should a server order it differently.
#[derive(Debug)]
pub(super) struct Comparison {
    arrived: SpoolReader,
    buffer: BytesMut,
    arrived_sum: Sum,
    listed_sum: Sum,
    difference: Option<String>,
}

impl Comparison {
    /// The manifest lists a file.
    pub(super) async fn listed(&mut self, listed: &ListedFile) -> Result<(), PostgresError> {
        self.listed_sum.add(&record(listed));
        if self.difference.is_some() {
            return Ok(());
        }
        self.difference = match self.next_arrived().await? {
            Some(arrived) if arrived == *listed => None,
            Some(arrived) if arrived.path == listed.path => return Err(differs(&arrived, listed)),
            Some(arrived) => Some(format!(
                "it lists {} where {} arrived",
                name(&listed.path),
                name(&arrived.path)
            )),
            None => Some(format!("it lists {}, which did not arrive", name(&listed.path))),
        };
        Ok(())
    }

    /// The manifest is complete.
    pub(super) async fn finish(mut self) -> Result<(), PostgresError> {
        if self.arrived_sum == self.listed_sum {
            return Ok(());
        }
        let extra = match &self.difference {
            None => self.next_arrived().await?,
            Some(_) => None,
        };
        let extra = extra.map(|file| format!("{} arrived and is not listed", name(&file.path)));
        let what = self.difference.or(extra);
        Err(PostgresError::Manifest(what.unwrap_or_else(|| {
            "it lists other files than arrived".to_owned()
        })))
    }

    async fn next_arrived(&mut self) -> Result<Option<ListedFile>, PostgresError> {
        loop {
            if let Some(file) = taken(&mut self.buffer) {
                return Ok(Some(file));
            }
            let more: Bytes = self.arrived.next().await?;
            if more.is_empty() {
                return Ok(None);
            }
            self.buffer.extend_from_slice(&more);
        }
    }
}

/// Takes a record off the front, if it is there whole.
fn taken(buffer: &mut BytesMut) -> Option<ListedFile> {
    let length = buffer.get(..4)?.try_into().map(u32::from_be_bytes).ok()? as usize;
    if buffer.len() < length + 16 {
        return None;
    }
    buffer.advance(4);
    let path = buffer.split_to(length).to_vec();
    Some(ListedFile {
        path,
        size: buffer.get_u64(),
        checksum: buffer.get_u32(),
    })
}

fn differs(arrived: &ListedFile, listed: &ListedFile) -> PostgresError {
    let facts = |file: &ListedFile| format!("{} bytes with CRC-32C {:08x}", file.size, file.checksum);
    PostgresError::Manifest(format!(
        "{}: {} arrived, {} are listed",
        name(&listed.path),
        facts(arrived),
        facts(listed)
    ))
}

fn name(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}
