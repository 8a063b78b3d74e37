//! Numbers and vectors in the encoding of TLS: RFC 8446, section 3.

/// The reason why something cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The bytes end within it.
    Short,
    /// It is something else.
    Broken,
}

impl Fault {
    /// [`Fault::Broken`], unless it `is_so`.
    pub(super) fn unless(is_so: bool) -> Result<(), Self> {
        if is_so { Ok(()) } else { Err(Self::Broken) }
    }
}

/// Takes fields from the front of some bytes. If there are too few, the result is always
/// [`Fault::Short`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Fault::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], Fault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Fault::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u24(&mut self) -> Result<u32, Fault> {
        self.array().map(|[high, middle, low]| u32::from_be_bytes([0, high, middle, low]))
    }

    /// A vector after its length of one byte.
    pub(super) fn short(&mut self) -> Result<Self, Fault> {
        let len = self.u8()?;
        self.take(len.into()).map(Self::new)
    }

    /// A vector after its length of two bytes.
    pub(super) fn long(&mut self) -> Result<Self, Fault> {
        let len = self.u16()?;
        self.take(len.into()).map(Self::new)
    }
}
