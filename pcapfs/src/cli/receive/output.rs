//! The files of `receive`: names of their own, and contents that are whole after each write.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use time::OffsetDateTime;

use crate::failure::Failure;

/// The contents of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileForm {
    /// The bytes that came, and nothing else.
    Bytes,
    /// A savefile with a packet for each read.
    Pcapng,
}

impl FileForm {
    const fn extension(self) -> &'static str {
        match self {
            Self::Bytes => "bin",
            Self::Pcapng => "pcapng",
        }
    }
}

/// The directory of the files.
#[derive(Debug)]
pub(super) struct OutputFolder {
    path: PathBuf,
    names: SuccessiveNames,
}

impl OutputFolder {
    /// Uses a directory, which is made if it is missing.
    ///
    /// # Errors
    /// No file can be made there.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let made = fs::create_dir_all(path);
        let checked = made.and_then(|()| {
            let needed = AccessFlags::W_OK | AccessFlags::X_OK;
            access(path, needed).map_err(io::Error::from)
        });
        checked.map_err(|error| {
            let shown = path.display();
            Failure::Answer(format!("{shown}: {error} (name another directory with -o)"))
        })?;
        Ok(Self { path: path.to_owned(), names: SuccessiveNames::default() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a file for what comes at this port. No file is ever overwritten.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn create(&mut self, port: u16, form: FileForm) -> io::Result<StreamFile> {
        self.create_at(
            port,
            form,
            OffsetDateTime::now_local().unwrap_or_else(|_| {
                // Only a broken database of time zones leads here.
                OffsetDateTime::now_utc()
            }),
        )
    }

    fn create_at(
        &mut self,
        port: u16,
        form: FileForm,
        time: OffsetDateTime,
    ) -> io::Result<StreamFile> {
        let stem = stem(port, time);
        loop {
            let name = self.names.next(&stem, form.extension());
            let path = self.path.join(name);
            // It fails if anything has the name, also a link that leads nowhere.
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(StreamFile { file, path, len: 0 }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// True if nothing more can be written there.
    pub(super) fn is_full(&self) -> bool {
        statvfs(&self.path).is_ok_and(|system| system.blocks_available() == 0)
    }

    /// Writes the names of the files to the disk.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        match File::open(&self.path)?.sync_all() {
            // Some file systems keep names without being asked.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            synced => synced,
        }
    }
}

/// The name of a file without its number and extension: local time, as in the programs that have
/// this form of names.
fn stem(port: u16, time: OffsetDateTime) -> String {
    format!(
        "stream_{port}_{:04}{:02}{:02}_{:02}{:02}{:02}",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// Names that are tried one after the other: without a number, then with 2, 3 and so on.
///
/// The number goes on for as long as the stem is the same, so that a thousand files of one second
/// do not take half a million attempts.
#[derive(Debug, Default)]
struct SuccessiveNames {
    stem: String,
    last: u32,
}

impl SuccessiveNames {
    fn next(&mut self, stem: &str, extension: &str) -> String {
        if self.stem != stem {
            stem.clone_into(&mut self.stem);
            self.last = 0;
        }
        self.last = self.last.saturating_add(1);
        match self.last {
            1 => format!("{stem}.{extension}"),
            number => format!("{stem}-{number}.{extension}"),
        }
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct StreamFile {
    file: File,
    path: PathBuf,
    /// Bytes that were written completely.
    len: u64,
}

impl StreamFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends all of the bytes, or none.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.file.write_all_at(bytes, self.len) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Shortening a file needs no room.
                self.file.set_len(self.len)?;
                Err(error)
            }
        }
    }

    /// Writes it to the disk.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Removes a file in which nothing could be written.
    pub(super) fn discard(self) {
        // Otherwise an empty file stays.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_that_has_the_name_is_touched() {
        let directory = tempfile::tempdir().unwrap();
        let mut folder = OutputFolder::open(directory.path()).unwrap();
        let time = OffsetDateTime::from_unix_timestamp(1_710_505_296).unwrap();
        fs::write(directory.path().join("stream_5000_20240315_122136.bin"), "earlier").unwrap();
        let link = directory.path().join("stream_5000_20240315_122136-2.bin");
        symlink(directory.path().join("elsewhere"), link).unwrap();
        let mut create = |port| {
            let mut file = folder.create_at(port, FileForm::Bytes, time).unwrap();
            file.append(b"new").unwrap();
            file.path().file_name().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(create(5000), "stream_5000_20240315_122136-3.bin");
        assert_eq!(create(5000), "stream_5000_20240315_122136-4.bin");
        assert_eq!(create(5001), "stream_5001_20240315_122136.bin");
        assert_eq!(create(5000), "stream_5000_20240315_122136-5.bin");
        let earlier = fs::read(directory.path().join("stream_5000_20240315_122136.bin")).unwrap();
        assert_eq!(earlier, b"earlier");
        assert!(!names(directory.path()).contains(&"elsewhere".to_owned()));
    }

    #[test]
    fn a_directory_is_made_with_those_above_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        OutputFolder::open(&path).unwrap();
        assert!(path.is_dir());
        fs::write(directory.path().join("file"), "").unwrap();
        let error = OutputFolder::open(&directory.path().join("file")).unwrap_err().to_string();
        assert!(error.ends_with("(name another directory with -o)"), "{error}");
    }
}
