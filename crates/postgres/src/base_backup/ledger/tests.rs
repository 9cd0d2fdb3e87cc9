//! Sets of files that are equal, and sets that are not.

use proptest::prelude::*;

use super::*;

fn file(number: u32) -> ListedFile {
    ListedFile {
        path: format!("base/5/{number}").into_bytes(),
        size: u64::from(number) * 3,
        checksum: !number,
    }
}

fn compare(arrived: &[ListedFile], listed: &[ListedFile]) -> Result<(), String> {
    let room = std::env::temp_dir().join(format!("bs-ledger-{}-{:p}", std::process::id(), arrived));
    std::fs::create_dir_all(&room).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let compared = runtime.block_on(async {
        let mut ledger = Ledger::new(&room);
        for file in arrived {
            ledger.arrived(file).await?;
        }
        let mut comparison = ledger.into_comparison().await?;
        for file in listed {
            comparison.listed(file).await?;
        }
        comparison.finish().await
    });
    assert_eq!(
        std::fs::read_dir(&room).unwrap().count(),
        0,
        "the scratch file is left"
    );
    std::fs::remove_dir_all(&room).unwrap();
    compared.map_err(|error: PostgresError| error.to_string())
}

#[test]
fn forty_thousand_files_are_compared_through_a_scratch_file() {
    let files: Vec<ListedFile> = (0..40_000).map(file).collect();
    assert_eq!(compare(&files, &files), Ok(()));
    let mut reversed = files.clone();
    reversed.reverse();
    assert_eq!(compare(&files, &reversed), Ok(()));
}

#[test]
fn each_difference_names_a_file() {
    let files: Vec<ListedFile> = (0..4).map(file).collect();
    let said = |arrived: &[ListedFile], listed: &[ListedFile]| compare(arrived, listed).unwrap_err();
    let prefix = "base backup: the server's manifest disagrees: ";
    assert_eq!(
        said(&files[..3], &files),
        format!("{prefix}it lists base/5/3, which did not arrive")
    );
    assert_eq!(
        said(&files, &files[..3]),
        format!("{prefix}base/5/3 arrived and is not listed")
    );
    let mut other = files.clone();
    other[2].checksum = 1;
    assert_eq!(
        said(&other, &files),
        format!(
            "{prefix}base/5/2: 6 bytes with CRC-32C 00000001 arrived, 6 bytes with CRC-32C fffffffd are listed"
        )
    );
    other = files.clone();
    other[1].path = b"base/5/\xff".to_vec();
    assert_eq!(
        said(&other, &files),
        format!("{prefix}it lists base/5/1 where base/5/\\xff arrived")
    );
}

proptest! {
    #[test]
    fn two_lists_agree_exactly_when_they_hold_the_same_files(
        mut one in proptest::collection::vec(0u32..6, 0..8), mut other in proptest::collection::vec(0u32..6, 0..8),
    ) {
        let files = |numbers: &[u32]| numbers.iter().copied().map(file).collect::<Vec<_>>();
        let agreed = compare(&files(&one), &files(&other)).is_ok();
        one.sort_unstable();
        other.sort_unstable();
        prop_assert_eq!(agreed, one == other);
    }
}
