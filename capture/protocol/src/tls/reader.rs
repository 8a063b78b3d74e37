//! Numbers and vectors in the encoding of TLS: RFC 8446, section 3.

/// The reason why something cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HelloFault {
    /// The bytes end within it.
    Short,
    /// It is something else.
    Broken,
}

impl HelloFault {
    /// [`HelloFault::Broken`], unless it `is_so`.
    pub(super) fn unless(is_so: bool) -> Result<(), Self> {
        if is_so { Ok(()) } else { Err(Self::Broken) }
    }
}

/// Takes fields from the front of some bytes. If there are too few, the result is always
/// [`HelloFault::Short`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FieldReader<'a> {
    rest: &'a [u8],
}

impl<'a> FieldReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], HelloFault> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(HelloFault::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], HelloFault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(HelloFault::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, HelloFault> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, HelloFault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u24(&mut self) -> Result<u32, HelloFault> {
        self.array().map(|[high, middle, low]| u32::from_be_bytes([0, high, middle, low]))
    }

    /// A vector after its length of one byte.
    pub(super) fn short(&mut self) -> Result<Self, HelloFault> {
        let len = self.u8()?;
        self.take(len.into()).map(Self::new)
    }

    /// A vector after its length of two bytes.
    pub(super) fn long(&mut self) -> Result<Self, HelloFault> {
        let len = self.u16()?;
        self.take(len.into()).map(Self::new)
    }
}
